"""An imported model on disk: configuration and weights, whole or not there."""

from pathlib import Path

import yaml
from safetensors import SafetensorError

from pretzel.cli.importing.run_config import RunParts, fit_config
from pretzel.errors import UserError
from pretzel.files.storage import save_tensors
from pretzel.interop.imported_flow import ImportedFlow

_HEADER = "# Imported by pretzel. Every part may be changed; `weights` are where it starts from.\n"
_IN_MODULE = "pretzel.stack."
"""What the names of a TarFlow's blocks begin with in the training module."""


class _Plain(yaml.SafeDumper):
    """Writes equal parts out: each is to be changed by itself."""

    def ignore_aliases(self, data: object) -> bool:
        """Return True."""
        return True


def write_import(
    flow: ImportedFlow, around: RunParts, folder: Path, *, metadata: dict[str, str]
) -> None:
    """Write ``config.yaml`` and ``weights.safetensors``, or nothing.

    Args:
        flow: The model.
        around: What stands around its blocks.
        folder: Where to; it is made.
        metadata: Where the weights are from.

    Raises:
        UserError: If the weights do not fit the configuration, or cannot be written.
    """
    weights, config = folder / "weights.safetensors", folder / "config.yaml"
    values = fit_config(flow, around, weights=weights, name=folder.absolute().name)
    flow.check()
    text = _HEADER + yaml.dump(values, Dumper=_Plain, sort_keys=False, width=100)
    tensors = {_IN_MODULE + name: value.contiguous() for name, value in flow.tensors.items()}
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    partial = {path: path.with_name(f"{path.name}.partial") for path in (weights, config)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, partial[weights], metadata)
        partial[config].write_text(text, encoding="utf-8")
        for path, whole in partial.items():
            whole.replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--out: {folder}: cannot be written ({error})") from error
    finally:
        for whole in partial.values():
            whole.unlink(missing_ok=True)
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
