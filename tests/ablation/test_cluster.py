"""A cell in a job of Slurm: who starts its processes, and that only the engine queues it again."""

import json
import signal
import sys
from typing import ClassVar

import pytest
from jsonargparse import Namespace
from lab_files import BASE
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from pretzel.ablation.engines.local import worker_environment
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.worker.process import StopRequest, is_first_process
from pretzel.ablation.worker.slurm_tasks import cluster_plugins
from pretzel.ablation.worker.training import WorkerCLI, train_and_test
from pretzel.errors import UserError

ONE = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "NNODES": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
TWO = ONE | {"NTASKS": 2, "NTASKS_PER_NODE": 2}


@pytest.fixture
def slurm(monkeypatch):
    def job(values):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        monkeypatch.setenv("SLURM_JOB_NAME", "pretzel")
        for name, value in values.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))

    return job


def config(**trainer):
    values = json.loads(json.dumps(BASE))
    values["trainer"] |= {"logger": False, "enable_checkpointing": False, **trainer}
    return values


def environment(**trainer):
    """Return what a cell's trainer goes by."""
    cell = WorkerCLI(Namespace({"subcommand": "fit", "fit": config(**trainer)}))
    return cell.trainer._accelerator_connector.cluster_environment


def test_slurm_starts_the_processes_and_lightning_queues_nothing(project, slurm):
    slurm(ONE)
    found = environment()
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue
    slurm(TWO)
    found = environment(devices=2, strategy="ddp")
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue
    assert found.creates_processes_externally
    assert found.world_size() == 2


@pytest.mark.parametrize("devices", [2, [0, 1], "2", "auto"])
def test_lightning_starts_them_where_the_job_has_one_task(slurm, devices):
    slurm(ONE)
    (found,) = cluster_plugins(None, devices)
    assert isinstance(found, LightningEnvironment)
    assert not found.creates_processes_externally


def test_two_devices_of_one_task(project, slurm):
    slurm(ONE)
    assert isinstance(environment(devices=2, strategy="ddp"), LightningEnvironment)


def test_what_the_user_chooses_stays_but_queues_nothing(slurm):
    slurm(ONE)
    own = LightningEnvironment()
    assert cluster_plugins(own, 1) == [own]
    (chosen,) = cluster_plugins([SLURMEnvironment()], 1)
    assert not chosen.auto_requeue


def test_nothing_is_chosen_outside_a_job(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert cluster_plugins(None, 2) == []


def test_tasks_that_would_train_one_cell_twice(project, slurm):
    slurm(TWO)
    with pytest.raises(UserError, match=r"= 1 x 1, got 2; give .* --slurm ntasks_per_node=1"):
        environment(devices=1)
    slurm(ONE)
    with pytest.raises(UserError, match=r"= 2 x 3, got 1; give --slurm nodes=3"):
        environment(devices=2, num_nodes=3, strategy="ddp")


def test_tasks_that_lightning_cannot_count(slurm, monkeypatch):
    slurm(TWO)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match="Use `--ntasks-per-node=2` instead"):
        cluster_plugins(None, 2)


@pytest.mark.parametrize(
    ("ranks", "first"),
    [
        ({}, True),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, False),  # on another node
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # started by Lightning
    ],
)
def test_one_process_of_a_cell_takes_its_lease(monkeypatch, ranks, first):
    for name in ("LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first


def test_cells_of_this_machine_are_no_tasks_of_the_job_that_we_are_in(slurm):
    slurm(TWO | {"PROCID": 1})
    found = worker_environment()
    assert found["SLURM_JOB_ID"] == "7"
    assert not {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE"} & found.keys()


class Handlers(Callback):
    """Sends what Slurm sends before the time is up, in the midst of training."""

    found: ClassVar[list[object]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.found.append(signal.getsignal(signal.SIGUSR1))
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGUSR1)


def test_the_signal_before_the_time_is_up_saves_and_stops(project, slurm, monkeypatch):
    monkeypatch.setitem(sys.modules, "handlers", sys.modules[__name__])
    slurm(ONE)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    spec = {
        "config": config(callbacks=[{"class_path": "handlers.Handlers"}]) | {"seed_everything": 1},
        "checkpoint_seconds": 1000,
        "export": False,
    }
    try:
        stop = StopRequest()
        own = signal.getsignal(signal.SIGUSR1)
        with pytest.raises(SystemExit):  # Lightning's way to end after KeyboardInterrupt
            train_and_test(RunFolder(path=project), spec, lambda: stop.is_made)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stop.is_made
    assert Handlers.found == [own] * 3
    assert (project / "last.ckpt").exists()
