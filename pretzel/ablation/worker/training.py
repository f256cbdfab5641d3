"""Fit and test of one run, and its results; imports torch and Lightning."""

import copy
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from safetensors import SafetensorError
from typing_extensions import override

from pretzel.ablation.identity.fingerprint import hashed
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.protocols import DigestsSamples, Exports, HasFacts, SampleResult, TimesItself
from pretzel.ablation.sample_file import sample_results, write_samples
from pretzel.ablation.worker.checkpoints import Checkpoints, digest, save_final
from pretzel.ablation.worker.hang_watchdog import Watchdog
from pretzel.ablation.worker.provenance import peak_memory, versions
from pretzel.ablation.worker.run_monitor import RunMonitor, logged_scalars
from pretzel.ablation.worker.slurm_tasks import check_tasks, cluster_plugins
from pretzel.errors import UserError
from pretzel.files.atomic import read_json, whole_file, write_json, write_text
from pretzel.runs.cli import RunCLI
from pretzel.runs.exact_resume import make_exact
from pretzel.runs.rank_deaths import exit_with, ranks_observed
from pretzel.runs.weights_hash import trained_weights_hash


class WorkerCLI(RunCLI):
    """The command line's own way from a configuration to objects; the run uses them itself."""

    @override
    def parse_arguments(self, parser: Any, args: ArgsType) -> None:
        assert isinstance(args, Namespace)
        # The plan has resolved it: another dump would say the same, for a tenth of a short run.
        self.config_dump = copy.deepcopy(args["fit"])  # the parser works on what it is given
        super().parse_arguments(parser, args)

    @override
    def before_instantiate_classes(self) -> None:
        self.save_config_callback = None  # the run saves what was dumped

    @override
    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config["plugins"] = cluster_plugins(config.get("plugins"), config.get("devices"))
        trainer = super()._instantiate_trainer(config, callbacks)
        check_tasks(trainer)
        return trainer

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Leave fitting and testing to :func:`train_and_test`."""


def train_and_test(
    folder: RunFolder,
    spec: dict[str, Any],
    must_stop: Callable[[], bool],
    watchdog: Watchdog | None = None,
    end: Callable[[UserError], None] = exit_with,
) -> dict[str, Any]:
    """Fit from the last checkpoint, if there is one, then test with the final weights.

    The folder holds checkpoints or ``final.ckpt`` of an earlier process, if there was one; ``spec``
    is its ``run.json``. ``must_stop`` tells at each batch whether to stop; ``end`` ends the process
    where another one of the run has died.

    Returns:
        What ``result.json`` holds: times in seconds (of a step the median, data included,
        validation not; ``evaluation_seconds`` of the process that ended training, and of the test),
        peak memory in bytes.

    Raises:
        KeyboardInterrupt: After saving, when it must stop.
        UserError: If the training loss is not finite, a stage's module exports nothing, or another
            process of the run has died.
    """
    monitor = RunMonitor(folder, float(spec["checkpoint_seconds"]), must_stop, watchdog)
    cli = WorkerCLI(Namespace({"subcommand": "fit", "fit": spec["config"]}))  # type: ignore[no-untyped-call]
    write_text(folder.path / "config.yaml", yaml.safe_dump(cli.config_dump, sort_keys=False))
    trainer, model = cli.trainer, cli.model
    if spec["export"] and hasattr(model, "export_to"):
        model.export_to = None  # the stage's file lies in its folder, and nowhere else
    monitor.follow(trainer, make_exact(trainer))
    with ranks_observed(trainer, f"in {folder.path / 'log.txt'}", end):
        return _results(cli, folder, spec, must_stop, monitor)


def _results(
    cli: WorkerCLI,
    folder: RunFolder,
    spec: dict[str, Any],
    must_stop: Callable[[], bool],
    monitor: RunMonitor,
) -> dict[str, Any]:
    trainer, model, loop = cli.trainer, cli.model, make_exact(cli.trainer)
    seed = int(cli.config["fit"]["seed_everything"])
    fitted, final = _fitted(folder.path), folder.path / "final.ckpt"
    if fitted is None:
        if _all_stop(trainer, must_stop()):
            raise KeyboardInterrupt
        checkpoint = monitor.checkpoints.newest()
        trainer.fit(model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        fitted = {
            "metrics": logged_scalars(trainer),
            "train_seconds": monitor.seconds,
            "steps": trainer.global_step,
            "step_seconds": statistics.median(loop.step_seconds) if loop.step_seconds else None,
            "peak_memory_bytes": peak_memory(trainer.strategy.root_device),
            "facts": facts(trainer),
            "evaluation_seconds": evaluation_seconds(trainer),
            "weights": monitor.weights | {"final": trained_weights_hash(model)},
            "sha256": save_final(trainer, final),
        }
        if trainer.is_global_zero:
            write_json(folder.path / "fit.json", fitted)
    else:  # trained by an earlier process: nothing has put its weights into this model yet
        trained = torch.load(final, map_location="cpu", weights_only=True)
        model.on_load_checkpoint(trained)
        model.load_state_dict(trained["state_dict"])
        trainer.fit_loop.load_state_dict(trained["loops"]["fit_loop"])  # the step of the figures
    if _all_stop(trainer, must_stop()):
        raise KeyboardInterrupt
    metrics = dict(fitted["metrics"])
    is_tested = spec.get("tests", not spec["export"]) and is_overridden("test_step", model)
    if is_tested:
        # seeded anew: the test is the same whether training has just ended or was resumed
        seed_everything(seed, workers=True, verbose=False)
        trainer.test(
            model, datamodule=cli.datamodule, ckpt_path=final, weights_only=True, verbose=False
        )
        metrics |= logged_scalars(trainer)
    samples = sample_results(trainer) if is_tested else []
    evaluating = fitted.get("evaluation_seconds", {})
    for name, seconds in evaluation_seconds(trainer).items() if is_tested else ():
        evaluating[name] = evaluating.get(name, 0.0) + seconds
    # the engine kills what is still there when the first process ends
    trainer.strategy.barrier()
    if spec["export"]:
        _export(model, folder.path / "weights.safetensors")
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    peak = max(fitted["peak_memory_bytes"], peak_memory(trainer.strategy.root_device))
    return {
        "metrics": metrics,
        "facts": fitted["facts"] | facts(trainer),
        **{key: fitted[key] for key in ("train_seconds", "steps", "step_seconds")},
        "weights": fitted.get("weights"),  # runs of earlier versions have none
        "measured": test_digest(trainer, samples) if is_tested else None,
        "samples": write_samples(folder.path, samples) if trainer.is_global_zero else None,
        "seconds": monitor.seconds,
        "evaluation_seconds": evaluating,
        "peak_memory_bytes": peak,
        "parameters": {"trainable": sizes[True], "frozen": sizes[False]},
        "versions": versions(),
    }


def facts(trainer: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    """Return what callbacks know of their metrics, by name of the metric."""
    by_metric: dict[str, dict[str, Any]] = {}
    for callback in trainer.callbacks:
        if isinstance(callback, HasFacts):
            for name, values in callback.facts.items():
                by_metric[name] = by_metric.get(name, {}) | values
    return by_metric


def evaluation_seconds(trainer: Any) -> dict[str, float]:  # noqa: ANN401
    """Return how much of the last fit or test callbacks took, by their names, as far as known."""
    seconds: dict[str, float] = {}
    for callback in trainer.callbacks:
        if isinstance(callback, TimesItself):
            name = type(callback).__name__
            seconds[name] = seconds.get(name, 0.0) + callback.evaluation_seconds
    return seconds


def test_digest(trainer: Any, samples: Sequence[SampleResult]) -> str | None:  # noqa: ANN401
    """Return a digest of what a test has measured, times aside: metrics, and every item's result.

    None where no part keeps the results of items: metrics may be equal by chance.
    """
    parts = [trainer.lightning_module, *trainer.callbacks]
    digests = sorted(d for p in parts if isinstance(p, DigestsSamples) and (d := p.sample_digest))
    values = {k: v for k, v in logged_scalars(trainer).items() if "seconds" not in k}
    return hashed([digests, samples, values]) if digests or samples else None


def _all_stop(trainer: Trainer, must_stop: bool) -> bool:
    """Tell whether the processes of the run stop; before they have met, the first one decides."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return trainer.strategy.reduce_boolean_decision(must_stop, all=False)
    return must_stop and trainer.is_global_zero


def _fitted(folder: Path) -> dict[str, Any] | None:
    """Return ``fit.json`` of an earlier process; None if there is more to train."""
    Checkpoints(folder).sweep()
    fitted, final = read_json(folder / "fit.json"), folder / "final.ckpt"
    if fitted is None or not final.exists():
        return None
    if digest(final) != fitted.get("sha256"):
        rank_zero_info(f"{final} is damaged; the end of training is run again")
        return None
    return fitted


def _export(model: LightningModule, path: Path) -> None:
    if not isinstance(model, Exports):
        raise UserError(f"{type(model).__name__} cannot be a stage: it has no method export(path)")
    try:
        with whole_file(path) as partial:
            model.export(partial)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error
