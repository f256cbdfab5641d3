"""Writes configuration and weights of an imported model, both or neither."""

from pathlib import Path

import yaml
from safetensors import SafetensorError

from pretzel.cli.importing.run_config import RunParts, fit_config
from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.weights import save_exported
from pretzel.interop.imported_flow import ImportedFlow

_HEADER = "# Imported by pretzel. Every part may be changed; `weights` are where it starts from.\n"
_IN_MODULE = "pretzel.stack."
"""Beginning of the names of a TarFlow's blocks in the training module."""


class _PlainDumper(yaml.SafeDumper):
    """Writes equal nodes out, without aliases: users change each by itself."""

    def ignore_aliases(self, data: object) -> bool:
        """Tell that no node gets one."""
        return True


def write_import(
    flow: ImportedFlow, parts: RunParts, folder: Path, *, metadata: dict[str, str]
) -> None:
    """Write ``config.yaml`` and ``weights.safetensors``, with their origin, or nothing."""
    weights, config = folder / "weights.safetensors", folder / "config.yaml"
    values = fit_config(flow, parts, weights=weights, name=folder.absolute().name)
    flow.check()
    text = _HEADER + yaml.dump(values, Dumper=_PlainDumper, sort_keys=False, width=100)
    tensors = {_IN_MODULE + name: value.contiguous() for name, value in flow.tensors.items()}
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with whole_file(config) as partial_config, whole_file(weights) as partial_weights:
            save_exported(tensors, partial_weights, metadata)
            partial_config.write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(f"--out: {folder}: cannot be written ({error})") from error
    finally:
        for path in new_folders:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
