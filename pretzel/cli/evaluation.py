"""Evaluation of a trained module, or of a folder of pictures, by callbacks that measure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import ArgsType
from typing_extensions import override

from pretzel.ablation.sample_file import sample_results, write_samples
from pretzel.ablation.worker.provenance import versions
from pretzel.ablation.worker.run_monitor import logged_scalars
from pretzel.ablation.worker.training import facts
from pretzel.errors import UserError
from pretzel.files.atomic import write_json
from pretzel.files.image_file import IMAGE_SUFFIXES
from pretzel.files.weights import read_checkpoint
from pretzel.runs.cli import RunCLI, import_parts
from pretzel.runs.config.arguments import COMMAND_LINE
from pretzel.runs.config.class_paths import named_class
from pretzel.runs.config.nested import listed
from pretzel.runs.config.overlay import Config, at, fold, read, replaced
from pretzel.runs.config.overlay import override as laid_over
from pretzel.runs.config.yaml_lines import Source
from pretzel.runs.guards import guarded
from pretzel.runs.run_folder import is_checkpoint, weights_of
from pretzel.runs.stored_module import WEIGHTS, config_of_checkpoint, load_checkpoint
from pretzel.runs.weights_hash import trained_weights_hash

_CURRENT = "current_model_state"
"""Weights of a checkpoint beside averaged ones, Lightning's and our own."""
_SECTIONS = ("seed_everything", "model", "data")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of something that was evaluated.

    Attributes:
        evaluated: Path of the run, checkpoint or folder.
        weights: Hash of the weights that train; None of pictures.
        ema: Whether the weights are averages over training: ``no``, ``yes``, or with their decay;
            None of pictures.
        split: Of the data.
        seed: Of the run.
        metrics: Values by name, such as ``test/vqa``.
        facts: By metric, what comparable values share: numbers of images, extractor.
        not_measured: Classes of callbacks and metrics that this cannot have, and why.
        versions: Of the libraries.
    """

    evaluated: str
    weights: str | None
    ema: str | None
    split: str
    seed: int
    metrics: dict[str, float]
    facts: dict[str, dict[str, Any]]
    not_measured: dict[str, str]
    versions: dict[str, str]


@runtime_checkable
class SaysWhyNot(Protocol):
    """A callback that knows what it could not measure."""

    not_measured: Mapping[str, str]


@runtime_checkable
class TakesWeights(Protocol):
    """A module that loads what its ``export`` wrote."""

    def load_weights(self, path: Path) -> None:
        """Load them whole."""


class _EvaluationCLI(RunCLI):
    """The command line's own way from a configuration to objects, none of which runs."""

    def __init__(self, split: str, config: Config) -> None:
        self._whole = config
        super().__init__({"subcommand": "test" if split == "test" else "validate"})

    @override
    def parse_arguments(self, parser: Any, args: ArgsType) -> None:
        assert isinstance(args, dict | Namespace)
        self.config = self.parse(args["subcommand"], self._whole)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Leave it to :func:`evaluate`."""


def evaluate(
    what: Path,
    *,
    metrics: Path | None,
    config: Sequence[str],
    overrides: Sequence[tuple[str, Any]],
    real: Path | None,
    split: str,
    folder: Path,
) -> Evaluation:
    """Measure what lies at a path.

    Args:
        what: A run, a checkpoint, an export, or a folder of pictures.
        metrics: File of callbacks; None for those of the run.
        config: Files laid over the configuration of the run.
        overrides: Dotted keys of the configuration, and what they are to be.
        real: Folder of pictures that a folder of pictures is compared with.
        split: ``test`` or ``val``.
        folder: Where callbacks write.

    Raises:
        UserError: If there is nothing to evaluate, a part of the configuration is missing or
            wrong, or nothing measures.
    """
    import_parts()  # so that classes have their short names
    weights = None
    given = [read(file) for file in config]
    if holds_pictures(what):
        whole = _of_pictures(what, real, fold(given))
    else:
        weights, beside = weights_of(what)
        if real is not None:
            raise UserError(f"--real must be given for a folder of pictures alone, {what} is none")
        whole = fold([_kept(weights, beside), *given])
    for key, value in overrides:
        whole = laid_over(whole, key, value, COMMAND_LINE)
    if "data" not in whole.values:
        raise UserError(f"{what}: keeps no configuration of its data: give -c FILE, or its run")
    measuring, others = _measuring(_callbacks(whole, metrics), are_pictures=weights is None)
    if not measuring:
        named = "there are no metrics" if metrics is None else f"{metrics}: nothing in it measures"
        raise UserError(f"{named}: give --metrics a file with `callbacks:` that do")
    cli = _EvaluationCLI(split, _with_trainer(whole, measuring, metrics, folder))
    ema = None
    if weights is not None:
        ema = _averaging(whole, holds_averages=_load(cli.model, weights))
    seed_everything(cli.seed or 0, workers=True, verbose=False)  # as a grid's run before its test
    run = cli.trainer.test if split == "test" else cli.trainer.validate
    with guarded(cli.trainer):
        run(cli.model, datamodule=cli.datamodule, verbose=False)
    if split == "test" and cli.trainer.is_global_zero:
        write_samples(folder, sample_results(cli.trainer))
    of_weights = {} if ema is None else {"ema": ema}
    logged = logged_scalars(cli.trainer)
    recorded = facts(cli.trainer)
    not_measured: dict[str, str] = {}
    for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SaysWhyNot):
            not_measured |= callback.not_measured
    return Evaluation(
        evaluated=str(what),
        weights=None if weights is None else trained_weights_hash(cli.model),
        ema=ema,
        split=split,
        seed=cli.seed or 0,
        metrics=logged,
        facts={name: recorded.get(name, {}) | of_weights for name in {*recorded, *logged}},
        not_measured=dict.fromkeys(others, "a folder of pictures has no model") | not_measured,
        versions=versions(),
    )


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write an evaluation as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(evaluation))


def holds_pictures(path: Path) -> bool:
    """Tell a folder of pictures, which lie in it or in GenEval's layout, from a run."""
    if not path.is_dir():
        return False
    suffixes = {one.suffix.lower().removeprefix(".") for one in path.iterdir()}
    is_geneval = any(one.parent.name.isdecimal() for one in path.glob("*/metadata.jsonl"))
    return is_geneval or not suffixes.isdisjoint(IMAGE_SUFFIXES)


def _of_pictures(folder: Path, real: Path | None, given: Config) -> Config:
    """Return the configuration of a folder of pictures, and of those it is compared with."""
    model = {"class_path": "callbacks.PictureFolder", "init_args": {"folder": str(folder)}}
    if real is not None or "data" not in given.values:
        shown = None if real is None else str(real)
        data = {"class_path": "callbacks.RealPictures", "init_args": {"folder": shown}}
        return Config(values={"model": model, "data": data})
    sources = {key: source for key, source in given.sources.items() if key[0] == "data"}
    return Config(values={"model": model, "data": given.values["data"]}, sources=sources)


def _kept(weights: Path, beside: Path | None) -> Config:
    """Return the configuration beside weights, or that of the model in a checkpoint."""
    if beside is not None:
        kept = read(beside)
    elif is_checkpoint(weights):
        kept = config_of_checkpoint(read_checkpoint(weights), weights, LightningModule)
    else:
        raise UserError(f"{weights}: no config.yaml lies beside it")
    # the weights that training started from need not be there any more
    has_start = at(kept.values, WEIGHTS) is not None
    values = replaced(kept.values, WEIGHTS, None) if has_start else kept.values
    return Config(values=values, sources=kept.sources)


def _callbacks(whole: Config, metrics: Path | None) -> list[Any]:
    """Return the callbacks of a file of metrics, or of the run's own configuration."""
    if metrics is not None:
        whole = read(metrics)
        if "callbacks" in whole.values:
            return listed(whole.values["callbacks"])
    return listed(at(whole.values, ("trainer", "callbacks")))


def _measuring(callbacks: list[Any], *, are_pictures: bool) -> tuple[list[Any], tuple[str, ...]]:
    """Return the callbacks that measure, and the names of those that pictures cannot have."""
    measuring: list[Any] = []
    not_applicable: list[str] = []
    for node in callbacks:
        name = node.get("class_path") if isinstance(node, dict) else node
        if not isinstance(name, str):
            raise UserError(f"a callback must have a class_path, got {node!r:.80}")
        cls = named_class(name, (Callback,))
        if are_pictures and not getattr(cls, "needs_no_model", False):
            if getattr(cls, "evaluation_only", False):
                not_applicable.append(name)
        elif cls is None or getattr(cls, "evaluation_only", False):  # None the parser refuses
            measuring.append(node)
    return measuring, tuple(not_applicable)


def _with_trainer(
    whole: Config, callbacks: list[Any], metrics: Path | None, folder: Path
) -> Config:
    """Return what is parsed: the model, the data, and a trainer of our own."""
    trainer: dict[str, Any] = {
        "default_root_dir": str(folder),
        "logger": False,
        "enable_checkpointing": False,
        "devices": 1,
        "callbacks": callbacks,
    }
    for key in ("accelerator", "precision"):  # by which the run's own test computes
        if (value := at(whole.values, ("trainer", key))) is not None:
            trainer[key] = value
    values = {key: value for key, value in whole.values.items() if key in _SECTIONS}
    sources = {key: source for key, source in whole.sources.items() if key[0] in _SECTIONS}
    if metrics is not None:
        sources["trainer", "callbacks"] = Source(name=str(metrics))
    return Config(values=values | {"trainer": trainer}, sources=sources)


def _load(module: LightningModule, weights: Path) -> bool | None:
    """Load weights, and return whether they are averages; None where the file does not say."""
    if is_checkpoint(weights):
        checkpoint = read_checkpoint(weights)
        load_checkpoint(module, checkpoint, str(weights))
        return _CURRENT in checkpoint
    if not isinstance(module, TakesWeights):
        raise UserError(f"{weights}: {type(module).__name__} has no load_weights(path) for it")
    module.load_weights(weights)
    return None


def _averaging(whole: Config, *, holds_averages: bool | None) -> str:
    """Return whether weights are averages, in words, as far as file and configuration say."""
    for node in listed(at(whole.values, ("trainer", "callbacks"))):
        name = node.get("class_path") if isinstance(node, dict) else node
        cls = named_class(name, (Callback,)) if isinstance(name, str) else None
        averages = isinstance(cls, type) and (
            getattr(cls, "averages_weights", False) or issubclass(cls, WeightAveraging)
        )
        if averages and holds_averages is not False:
            decay = at({"node": node}, ("node", "init_args", "decay"))
            return "yes" if decay is None else f"decay {decay}"
    return "yes" if holds_averages else "no"
