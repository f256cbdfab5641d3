"""Ctrl-C while a grid runs: the command that is told continues the same runs and no others."""

import os
import signal

import pytest
from lab_files import write

from pretzel.__main__ import main
from pretzel.ablation.engines.base import Engine, StartedRun
from pretzel.ablation.execution.commands import planned
from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.worker.process import INTERRUPTED
from pretzel.files.atomic import write_json

CUBIC = {"model.features": {"class_path": "lab.Cubic", "init_args": {"scale": 0.1}}}


class Waiting(StartedRun):
    """Runs until it is interrupted."""

    code = None

    def poll(self):
        return self.code

    def interrupt(self):
        self.code = INTERRUPTED

    def kill(self):
        pass


class Interrupted(Engine):
    """Has Ctrl-C pressed as soon as runs are started."""

    def capacity(self):
        return 9

    def start(self, folders):
        os.kill(os.getpid(), signal.SIGINT)
        return [Waiting() for _ in folders]

    def close(self):
        pass


@pytest.mark.parametrize(("command", "again"), [
    ("grid run grid.yaml", "grid run grid.yaml"),
    ("grid run grid.yaml --only cubic --only lin*/*",
     "grid run grid.yaml --only cubic --only 'lin*/*'"),
    ("grid rerun grid.yaml cubic", "grid run grid.yaml --only cubic"),
    ("grid rerun grid.yaml --stale", "grid run grid.yaml"),
    ("grid evaluate grid.yaml", "grid evaluate grid.yaml"),
    ("reproduce runs/grid cubic", "reproduce runs/grid cubic --out runs/grid-reproduced"),
])  # fmt: skip
def test_the_hint_continues_what_was_stopped(project, monkeypatch, capsys, command, again):
    for place in ("grid", "reproduce"):
        monkeypatch.setattr(f"pretzel.cli.{place}.engine_of", lambda *_: Interrupted)
    axes = {"arm": {"linear": {}, "cubic": CUBIC}}
    baseline, metrics = {"arm": "linear"}, {"test/loss": "min"}
    grid = {"base": "base.yaml", "axes": axes, "baseline": baseline, "metrics": metrics}
    write("grid.yaml", {**grid, "seeds": [0]})
    plan = planned(load("grid.yaml"))
    plan.save()
    trained = {"--stale": "other", "evaluate": plan.compared[1].identity, "reproduce": "other"}
    for word, identity in trained.items():
        if word in command:
            write_json(
                plan.folder(plan.compared[1]).path / "result.json",
                {"identity": identity, "evaluation": "other", "metrics": {}},
            )
    assert main(command.split()) == 130
    assert f"stopped; to continue: pretzel {again}\n" in capsys.readouterr().err
