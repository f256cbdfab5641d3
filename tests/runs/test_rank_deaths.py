"""A process of a run that dies is named, whatever the run's first process is doing."""

import pytest
from lightning.pytorch import Trainer

from pretzel.errors import UserError
from pretzel.runs import rank_deaths
from pretzel.runs.rank_deaths import RankLauncher, ranks_observed


class Process:
    pid = 77

    def __init__(self, code):
        self.code, self.returncode, self.is_killed = code, None, False

    def poll(self):
        self.returncode = self.code
        return self.code

    def kill(self):
        self.is_killed = True


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.setattr(rank_deaths, "_GRACE_SECONDS", 0.0)
    return Trainer(accelerator="cpu", devices=3, strategy="ddp", logger=False)  # nothing is started


def run(trainer, codes, error=None, end=print):
    """Run as far as an error, when the processes beside the first have these exit codes."""
    with ranks_observed(trainer, "in log.txt", end):
        assert isinstance(trainer.strategy.launcher, RankLauncher)
        trainer.strategy.launcher.procs = [Process(code) for code in codes]
        if error is None:
            trainer.strategy.launcher.observe()
        else:
            raise RuntimeError(error)


def test_a_lost_connection_is_the_death_of_another(trainer):
    expected = r"^rank 2 of 3 \(process 77\) ended by signal 9; its messages are in log\.txt$"
    with pytest.raises(UserError, match=expected):
        run(trainer, [None, -9], "[pair.cc:534] Connection closed by peer [127.0.0.1]:1")


def test_an_error_of_its_own_stays(trainer):
    with pytest.raises(RuntimeError, match="mine"):
        run(trainer, [1, None], "mine")


def test_a_first_process_that_waits_for_ever_is_ended(trainer):
    ends = []
    run(trainer, [3, None], end=ends.append)
    expected = "rank 1 of 3 (process 77) ended with exit code 3; its messages are in log.txt"
    assert [str(end) for end in ends] == [expected]
    assert all(process.is_killed for process in trainer.strategy.launcher.procs)


def test_processes_that_end_well_end_nothing(trainer):
    ends = []
    run(trainer, [0, 0], end=ends.append)
    assert ends == []
