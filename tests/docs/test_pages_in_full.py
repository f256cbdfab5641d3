"""The longer runs of the pages, by their own commands and at their own length."""

import json
import subprocess
import sys
import time

import pytest
from doc_pages import ROOT, section, words_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow

GOALS = {"test/right": 0.85, "test/vqa": 0.85, "test/vqa_open": 0.75}
STAGES = ("docs/stages.md", "## The stages of the paper")
CONVERSATIONS = ("docs/generation.md", "## Conversations of several images")
LONGER = ("docs/stages.md", "## Longer, and in two processes")


def shell(text):
    return "\n".join(part.partition("\n```")[0] for part in text.split("```sh\n")[1:])


def logged(folder, name):
    log = EventAccumulator(str(folder))
    log.Reload()
    return log.Scalars(name)[-1].value


def test_the_demo(tmp_path):
    """`make demo`: the figures that the README promises, from the embedded data alone."""
    grid = ROOT / "ablations" / "quickstart.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "pretzel", "grid", "run", str(grid)], cwd=tmp_path, timeout=3500
    )
    assert done.returncode == 0
    assert (tmp_path / "runs" / "quickstart" / "compare.md").is_file()
    results = [
        json.loads((tmp_path / "runs/quickstart/stacked" / seed / "result.json").read_text())
        for seed in ("seed0", "seed1")
    ]
    mean = {name: sum(r["metrics"][name] for r in results) / 2 for name in results[0]["metrics"]}
    assert mean["test/right"] >= 0.6
    assert mean["test/vqa"] >= 0.75
    assert mean["test/vqa_open"] >= 0.5


@pytest.mark.parametrize(
    ("part", "folder", "goals"),
    [
        (LONGER, "runs/long/lightning_logs/version_1", GOALS),
        (STAGES, "runs/stages/s3", GOALS),
        (
            CONVERSATIONS,
            "runs/stages/s3",
            {**GOALS, "test/turn1_right": 0.85, "test/turn2_right": 0.85},
        ),
    ],
    ids=["longer", "stages", "conversations"],
)
def test_a_section(part, folder, goals, tmp_path):
    """The commands of a section in their order, and what the results promise."""
    (tmp_path / "ablations").symlink_to(ROOT / "ablations")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    started = time.monotonic()
    commands = words_of(shell(section(*part)))
    assert commands
    for words in commands:
        done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, timeout=3500)
        assert done.returncode == 0
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    for name, goal in goals.items():
        assert logged(tmp_path / folder, name) >= goal, name
