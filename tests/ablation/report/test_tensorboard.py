"""A grid in the real TensorBoard: over HTTP, and (slow) in a browser."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from made_grid import write_events

from pretzel.__main__ import main
from pretzel.ablation.report import tensorboard_hparams
from pretzel.ablation.report.comparison import load
from pretzel.cli.grid import grid
from pretzel.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def logged(output):
    """The grid's folder with curves and sample sheets of arms a and b."""
    for i, arm in enumerate("ab"):
        for seed in (0, 1):
            curve = {step: 1.0 / (step + i) for step in range(1, 9)}
            write_events(
                output / arm / f"seed{seed}", {"train/loss": curve},
                [("test/samples", 8, "red" if arm == "a" else "blue")],
            )  # fmt: skip
    return output


@contextlib.contextmanager
def running(folder):
    """Yield the address of `pretzel grid board`; its end by Ctrl-C must be clean."""
    code = "import sys; from pretzel.cli.grid import grid; sys.exit(grid(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "board", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line + process.stderr.read()
        yield next(word for word in line.split() if word.startswith("http"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "TensorBoard has ended\n"), err
        assert "Traceback" not in err
        deadline = time.monotonic() + 10  # its data server goes with it
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _alive(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def ask(url, route, **body):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(
        f"{url}data/{route}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text


def session_groups(url):
    return ask(
        url, "plugin/hparams/session_groups", experimentName="", startIndex=0, sliceSize=100,
        allowedStatuses=["STATUS_SUCCESS", "STATUS_UNKNOWN"],
        colParams=[{"metric": {"tag": "final/acc", "group": ""}}],
    ).get("sessionGroups", [])  # fmt: skip


def test_a_grid_in_tensorboard(logged, accuracy):
    tensorboard_hparams.write(load(logged))
    tensorboard_hparams.write(load(logged))  # replaces, does not add
    assert len(list(logged.glob("events.*"))) == 1
    with running(logged) as url:
        for _ in range(50):
            groups = session_groups(url)
            tags = ask(url, "plugin/images/tags")
            if len(groups) == 8 and len(tags) == 4:
                break
            time.sleep(0.2)
        experiment = ask(url, "plugin/hparams/experiment", experimentName="")
        assert {info["name"] for info in experiment["hparamInfos"]} == {"axis", "seed"}
        assert {info["name"]["tag"] for info in experiment["metricInfos"]} == {
            "final/acc", "final/loss", "final/acuracy",
        }  # fmt: skip
        found = {
            (g["hparams"]["axis"], int(g["hparams"]["seed"])): {
                m["name"]["tag"]: m["value"] for m in g["metricValues"]
            }["final/acc"]
            for g in groups
        }
        assert found == pytest.approx(
            {(arm, s): v for arm, values in accuracy.items() for s, v in values.items()}
        )
        # readable names of runs, and their scalars
        runs = ask(url, "runs")
        assert {"a/seed0", "a/seed1", "b/seed0", "b/seed1"} <= set(runs)
        curve = ask(url, "plugin/scalars/scalars?run=b%2Fseed1&tag=train%2Floss")
        assert [point[1] for point in curve] == [*range(1, 9)]
        assert [point[2] for point in curve] == pytest.approx([1 / (s + 1) for s in range(1, 9)])
        # the sample sheets
        assert set(tags) == {"a/seed0", "a/seed1", "b/seed0", "b/seed1"}
        (image,) = ask(url, "plugin/images/images?run=a%2Fseed0&tag=test%2Fsamples&sample=0")
        picture = ask(url, f"plugin/images/individualImage?{image['query']}")
        assert picture.startswith(b"\x89PNG")
        # what each arm changes
        (text,) = ask(url, "plugin/text/text?run=b%2Fseed0&tag=changes")
        assert "model.lr: 1 -&gt; 2" in text["text"]
        (text,) = ask(url, "plugin/text/text?run=.&tag=changes")
        assert all(change in text["text"] for change in ("model.lr: 1", "model.x: A", "baseline"))
        (text,) = ask(url, "plugin/text/text?run=c%2Fseed0&tag=changes")  # also of a failed cell
        assert "model.x: A -&gt; B" in text["text"]


def test_compare_writes_for_tensorboard_and_starts_no_cell(output):
    assert main(["compare", str(output), "--format", "all"]) == 0
    assert len(list((output / "a" / "seed0").glob("events.*"))) == 1
    assert not (output / "d").exists()


def test_board_takes_a_grids_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "base.yaml").write_text("model: {}\n")
    (tmp_path / "grid.yaml").write_text(
        "base: base.yaml\naxes: {x: {a: {}, b: {model.lr: 1}}}\nseeds: [0]\n"
        "baseline: {x: a}\nmetrics: {acc: max}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such folder; start with: pretzel grid run grid\.yaml"):
        grid(["board", "grid.yaml"])
    served = []
    monkeypatch.setattr(
        "pretzel.ablation.report.tensorboard_server.serve",
        lambda folder, port: served.append((folder, port)),
    )
    (tmp_path / "runs" / "grid").mkdir(parents=True)
    assert grid(["board", "grid.yaml", "--port", "7"]) == 0
    assert grid(["board", "runs"]) == 0
    assert served == [(Path("runs/grid"), 7), (Path("runs"), None)]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_grid_in_tensorboards_pages(logged, tmp_path):
    tensorboard_hparams.write(load(logged))
    deep_text = """(() => { const all = node => [...node.childNodes].map(n =>
      n.nodeType === 3 ? n.data : (n.shadowRoot ? all(n.shadowRoot) : '') + ' ' + all(n)
    ).join(' '); return all(document.body).replace(/\\s+/g, ' '); })()"""
    expected = {
        "timeseries": ["a/seed0", "b/seed1", "final /acc", "test /samples"],
        "scalars&tagFilter=train": ["train/loss", "a/seed0"],
        "hparams": ["axis", "seed", "acc ↑", "loss ↓", "c/seed2", "0.70000"],
        "images": ["test/samples", "a/seed0"],
        "text": ["changes", "model.lr: 1 -> 2"],
    }
    with running(logged) as url, Browser() as browser:
        browser.look(1500, 1600)  # cards below the edge are not drawn
        for tab, words in expected.items():
            browser.open("about:blank")
            browser.open(f"{url}#{tab}")
            told = ", ".join(f"t.includes({json.dumps(word)})" for word in words)
            assert browser.until(f"(t => [{told}].every(Boolean))({deep_text})"), (
                tab,
                browser.ask(deep_text)[:3000],
            )
            browser.picture(tmp_path / f"{tab.partition('&')[0]}.png")
        assert browser.complaints == []
        elsewhere = [
            r for r in browser.requests if not r.startswith((url, "data:", "about:", "blob:"))
        ]
        assert elsewhere == []
