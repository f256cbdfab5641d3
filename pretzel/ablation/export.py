"""``pretzel export RUN``: a run for others: weights, configuration, metrics and origin."""

import platform
import shutil
from pathlib import Path
from typing import Any

import yaml

from pretzel.ablation.gridfile.run_config import WEIGHTS, put
from pretzel.ablation.identity.differences import SNAPSHOTS, kept_source, modules_of
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.protocols import Exports
from pretzel.ablation.sample_file import SAMPLE_FILE, check_samples
from pretzel.errors import UserError
from pretzel.files.atomic import write_json, write_text
from pretzel.files.weights import read_checkpoint
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import Config
from pretzel.runs.stored_module import load_checkpoint

_PLACES = ("logger", "default_root_dir")  # in the configuration of the trainer
_RECORDED = ("modules", "measuring_modules", "data")


def export(run: Path, out: Path) -> None:
    """Write a finished run of a grid into a folder of its own.

    ``weights.safetensors`` (averaged ones, if averages were kept), ``config.yaml`` (resolved, and
    naming the weights beside it), ``metrics.json``, ``samples.jsonl.gz`` (where results
    of items were kept), ``environment.json`` and ``source/``. The run may be a stranger's: nothing
    is written outside of ``out``, or copied from outside of its grid.

    Raises:
        UserError: If the run is not finished or damaged, its module exports nothing, or ``out`` is
            there or cannot be written.
    """
    folder = RunFolder(path=run)
    spec, result = folder.spec, folder.result
    if spec is None or result is None or not (run / "final.ckpt").is_file():
        raise UserError(f"{run}: no finished run of a grid there (run.json, result.json)")
    for name in ("run.json", "result.json", "final.ckpt"):
        if (run / name).resolve().parent != run.resolve():
            raise UserError(
                f"{run / name}: a file of the run must lie in its folder, this is a link"
            )
    if out.exists():
        raise UserError(f"--out must not exist yet, got {out}")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(folder, spec, result, partial)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"--out: {out}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: RunFolder, spec: dict[str, Any], result: dict[str, Any], out: Path) -> None:
    config, fingerprint = _checked(spec, folder.path / "run.json")
    config = put(config, WEIGHTS, None)  # the run's own weights come in their place
    cli = ParseOnlyCLI()
    model = cli.build_model("fit", cli.parse("fit", Config(values=config)))
    if not isinstance(model, Exports):
        name = type(model).__name__
        raise UserError(f"{folder.path}: {name} cannot be exported: it has no method export(path)")
    final = folder.path / "final.ckpt"
    load_checkpoint(model, read_checkpoint(final), str(final))
    model.export(out / "weights.safetensors")
    trainer = config.get("trainer") or {}
    trainer = {key: value for key, value in trainer.items() if key not in _PLACES}
    config = put(config | {"trainer": trainer}, WEIGHTS, "weights.safetensors")
    write_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(out / "metrics.json", result.get("metrics", {}))
    if record := result.get("samples"):
        check_samples(folder.path, record)
        shutil.copyfile(folder.path / SAMPLE_FILE, out / SAMPLE_FILE)
    environment = {
        "run": spec.get("name"),
        "training": result.get("identity"),
        "evaluation": result.get("evaluation"),
        "versions": result.get("versions", {}),
        "platform": f"{platform.system()} {platform.machine()}",
        "data": fingerprint.get("data", {}),
        "modules": modules_of(fingerprint),
    }
    write_json(out / "environment.json", environment)
    _copy_source(folder.path, environment["modules"], out / "source")


def _checked(spec: dict[str, Any], file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration and the record of a run that may be a stranger's."""
    record = spec.get("fingerprint", {})
    mappings = {"config": spec.get("config"), "fingerprint": record}
    if isinstance(record, dict):
        mappings |= {f"fingerprint.{key}": record.get(key, {}) for key in _RECORDED}
    for key, value in mappings.items():
        if not isinstance(value, dict):
            raise UserError(f"{file}: {key} must be a mapping, got {value!r:.60}")
    return spec["config"], record


def _copy_source(run: Path, modules: dict[str, str], out: Path) -> None:
    """Copy the code that ran, as far as the grid has kept it."""
    grids = (up for up in run.resolve().parents if (up / SNAPSHOTS).is_dir())
    grid = next(grids, None)
    for name, digest in modules.items():
        kept = None if grid is None else kept_source(grid, digest)
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"{run / 'run.json'}: modules must be dotted names, got {name!r}")
        if kept is not None:
            target = out / f"{name.replace('.', '/')}.py"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, target)
