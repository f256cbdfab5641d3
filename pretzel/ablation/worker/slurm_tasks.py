"""Which of the two starts the processes of a run in a job of Slurm: Slurm itself, or Lightning."""

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer

from pretzel.errors import UserError


def cluster_plugins(plugins: object, devices: object) -> list[object]:
    """Return the plugins of a run's trainer, with one that fits the job of Slurm that we are in.

    Slurm starts one process for each task. Where the job has one task and the run several devices,
    Lightning starts the others. Lightning's own way to queue a job again, at SIGUSR1, is left out:
    the run saves, and the engine has it queued.

    What is chosen in ``trainer.plugins`` stays.

    Raises:
        UserError: If the job has several tasks, but not so many a node.
    """
    configured = [*plugins] if isinstance(plugins, list | tuple) else [plugins] if plugins else []
    environments = [plugin for plugin in configured if isinstance(plugin, ClusterEnvironment)]
    for environment in environments:
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False
    tasks = num_tasks()
    if environments or tasks == 0 or TorchElasticEnvironment.detect():
        return configured
    is_one = str(devices) == "1" or (isinstance(devices, list | tuple) and len(devices) == 1)
    if tasks == 1 and not is_one:
        return [*configured, LightningEnvironment()]
    try:
        return [*configured, SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        raise UserError(f"the job of Slurm: {error}") from error


def check_tasks(trainer: Trainer) -> None:
    """Refuse a job of Slurm with several tasks, but not one for each of the trainer's processes.

    Each task would train the run for itself, in the same folder.

    Raises:
        UserError: If the numbers differ.
    """
    tasks, wanted = num_tasks(), trainer.num_devices * trainer.num_nodes
    if tasks != wanted and (tasks > 1 or (tasks and trainer.num_nodes > 1)):
        raise UserError(
            f"the job's tasks must be trainer.devices x trainer.num_nodes = {trainer.num_devices} "
            f"x {trainer.num_nodes}, got {tasks}; give --slurm nodes={trainer.num_nodes} and "
            f"--slurm ntasks_per_node={trainer.num_devices}, or on one node one task, in which "
            "Lightning starts the others"
        )


def num_tasks() -> int:
    """Return how many processes Slurm has started for the run; 0 if it has not."""
    return int(os.environ.get("SLURM_NTASKS", "0"))
