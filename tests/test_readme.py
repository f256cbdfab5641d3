"""Every command of the README works: the light ones as they stand, training with fewer steps."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretzel.__main__ import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHRINK = str(Path(__file__).parent / "configs" / "shrink.yaml")


def commands(text: str = README) -> list[list[str]]:
    """Return the commands of all fenced sh blocks, without comments."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found


COMMANDS = commands()
STAGES = [c for c in COMMANDS if "ablations/stages/" in c[-1]]  # chained by tests/test_stages.py
FITS = [c for c in COMMANDS if c[:2] == ["pretzel", "fit"] and c not in STAGES]
PLANS = [c for c in COMMANDS if c[:2] == ["pretzel", "grid"]]
MAKES = [c for c in COMMANDS if c[0] == "make"]
ELSEWHERE = {  # tested with what they belong to
    ("pretzel", "compare"): "tests/ablation/report/test_compare.py",
    ("pretzel", "diff"): "tests/ablation/test_run.py",
    ("pretzel", "test"): "tests/test_readme.py",
    ("pretzel", "predict"): "tests/test_readme.py",
    ("pip", "install"): "tests/examples/test_causal_conv.py",
    ("python", "-m"): "tests/benchmarks/test_flow.py",
    ("pytest", "--laws"): "tests/testing/test_plugin.py",
    ("pretzel", "check"): "tests/testing/test_check.py",
    ("pretzel", "sample"): "tests/sampling/test_sample_command.py",
    ("pretzel", "import"): "tests/interop/test_import.py",
}


def joined(command: list[str]) -> str:
    return " ".join(command)


def test_the_first_screen_shows_demo_and_test():
    first = "\n".join(README.splitlines()[:40])
    assert "make demo" in first
    assert "make test" in first


def test_every_command_is_tested_somewhere():
    for command in COMMANDS:
        if command in FITS + PLANS + MAKES + STAGES:
            continue
        where = ELSEWHERE.get((command[0], command[1]))
        assert where is not None, f"no test runs: {joined(command)}"
        assert (ROOT / where).exists()


@pytest.mark.parametrize("command", MAKES, ids=joined)
def test_make_targets_exist(command):
    assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "file", sorted({word for command in PLANS for word in command if word.endswith(".yaml")})
)
def test_grids_plan(file, monkeypatch, tmp_path, capsys):
    path = ROOT / file
    monkeypatch.chdir(tmp_path)
    # What `pip install -e` of the example does.
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "pretzel_causal_conv" / "src"))
    assert main(["grid", "plan", str(path)]) == 0
    assert "seed" in capsys.readouterr().out


@pytest.mark.parametrize("command", FITS, ids=joined)
def test_fits_run_then_test_and_predict(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    small = yaml.safe_load(Path(SHRINK).read_text())
    small["trainer"]["default_root_dir"] = str(tmp_path)
    small["trainer"]["limit_predict_batches"] = 1
    small["trainer"]["callbacks"] = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"dirpath": str(tmp_path), "save_last": True, "save_top_k": 0},
        },
        {"class_path": "callbacks.PredictionWriter", "init_args": {"folder": str(tmp_path / "p")}},
    ]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    files = [word for word in command if word.endswith(".yaml")]
    options = [part for file in [*files, str(tmp_path / "small.yaml")] for part in ("-c", file)]
    assert main(["fit", *options]) == 0
    checkpoint = ["--ckpt_path", str(tmp_path / "last.ckpt")]
    assert main(["test", *options, *checkpoint]) == 0
    assert main(["predict", *options, *checkpoint]) == 0
    pictures = list((tmp_path / "p").glob("*.png"))
    assert len(pictures) == 8


@pytest.mark.slow
def test_the_demo_in_full(tmp_path):
    """`make demo`: the figures that the README promises, from the embedded data alone."""
    grid = ROOT / "ablations" / "quickstart.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "pretzel", "grid", "run", str(grid)], cwd=tmp_path, timeout=3500
    )
    assert done.returncode == 0
    assert (tmp_path / "runs" / "quickstart" / "compare.md").is_file()
    found = [
        json.loads((tmp_path / "runs/quickstart/stacked" / seed / "result.json").read_text())
        for seed in ("seed0", "seed1")
    ]
    mean = {name: sum(r["metrics"][name] for r in found) / 2 for name in found[0]["metrics"]}
    assert mean["test/right"] >= 0.6
    assert mean["test/vqa"] >= 0.75
    assert mean["test/vqa_open"] >= 0.5


@pytest.mark.slow
def test_the_longer_run_in_full(tmp_path):
    files = [
        part for name in ("easy_vqa", "long")
        for part in ("-c", str(ROOT / "ablations" / "base" / f"{name}.yaml"))
    ]  # fmt: skip
    checkpoint = tmp_path / "runs/long/lightning_logs/version_0/checkpoints/last.ckpt"
    for command in (["fit", *files], ["test", *files, "--ckpt_path", str(checkpoint)]):
        done = subprocess.run(
            [sys.executable, "-m", "pretzel", *command], cwd=tmp_path, timeout=3500
        )
        assert done.returncode == 0
    log = EventAccumulator(str(tmp_path / "runs/long/lightning_logs/version_1"))
    log.Reload()
    goals = {"test/right": 0.85, "test/vqa": 0.85, "test/vqa_open": 0.75}
    for name, goal in goals.items():
        assert log.Scalars(name)[-1].value >= goal, name


STAGE_GOALS = {"test/right": 0.85, "test/vqa": 0.85, "test/vqa_open": 0.75}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "goals"),
    [
        ("### The stages of the paper", STAGE_GOALS),
        ("### Talking to it", {**STAGE_GOALS, "test/turn1_right": 0.85, "test/turn2_right": 0.85}),
    ],
    ids=["stages", "conversations"],
)
def test_a_chain_of_stages_in_full(part, goals, tmp_path):
    """The stages by the commands of the README, and what they promise."""
    (tmp_path / "ablations").symlink_to(ROOT / "ablations")
    section = README.partition(part)[2].partition("\n##")[0]
    started = time.monotonic()
    for command in commands(section):
        if command[:2] in (["pretzel", "fit"], ["pretzel", "test"]):
            done = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, timeout=3500)
            assert done.returncode == 0
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    log = EventAccumulator(str(tmp_path / "runs/stages/s3"))
    log.Reload()
    for name, goal in goals.items():
        assert log.Scalars(name)[-1].value >= goal, name
