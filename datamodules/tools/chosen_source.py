"""The source that a command means: by paths, or by a configuration."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from datamodules.reading.patterns import expand
from datamodules.reading.remote import RemoteFiles, is_remote
from datamodules.sources.blend import Blend
from datamodules.sources.folder import Folder
from datamodules.sources.shards import Shards
from datamodules.sources.source import DataSource, Split
from datamodules.sources.table import TABLES
from datamodules.tools.packed_folder import SPLITS
from datamodules.tools.verify import TAR_SUFFIXES, shards_in
from pretzel.errors import UserError
from pretzel.runs.config.explain import construction, parsing
from pretzel.runs.config.overlay import Config, at, fold, read
from pretzel.runs.config.typed_parser import TypedParser
from pretzel.runs.config.yaml_lines import Key

_PATTERN = re.compile(r"[*?\[{:]")
"""Tells patterns, addresses and commands from the plain paths of this machine."""


@dataclass(frozen=True, kw_only=True)
class ChosenSource:
    """A source and how it was named.

    Attributes:
        source: The source.
        name: The paths, or the source in YAML, for a manifest.
        image_size: Side of the images in pixels, where a configuration says it.
        upscale: Whether it enlarges smaller images.
    """

    source: DataSource
    name: str
    image_size: int | None = None
    upscale: bool = False

    @property
    def plain_sources(self) -> tuple[DataSource, ...]:
        """The sources of a Blend, whose shards have names of their own; else the source."""
        if isinstance(self.source, Blend):
            return tuple(part.source for part in self.source.parts(None))
        return (self.source,)


def chosen_source(
    paths: Sequence[str], files: Sequence[str], images: str | None = None
) -> ChosenSource:
    """Return the source that paths or configuration files name.

    Args:
        paths: A folder of pictures or of shards, shards, a table, or VQAv2's two files.
        files: Configuration files, as for ``pretzel fit``, or of a source alone.
        images: Folder that the paths in a table begin at; its own if not given.

    Raises:
        UserError: If there are both or neither, or what they name is no source.
    """
    if bool(paths) == bool(files):
        given = "both" if paths else "neither"
        raise UserError(f"the data must be named by paths or by -c, got {given}")
    if files:
        if images is not None:
            raise UserError("--images goes with a table, not with -c")
        config = fold([read(file) for file in files])
        return _configured(config, files)
    source = _source_of_paths(paths, images)
    named = " ".join(paths) if images is None else f"{' '.join(paths)} --images {images}"
    return ChosenSource(source=source, name=named)


def _source_of_paths(paths: Sequence[str], images: str | None) -> DataSource:
    for path in paths:
        if path.endswith((".yaml", ".yml")):
            raise UserError(f"{path}: a configuration is named by -c {path}")
        if not (_PATTERN.search(path) or Path(path).exists()):
            raise UserError(f"{path}: no such file or folder")
    if Path(paths[0]).suffix.lower() in TABLES:
        return Folder(list(paths), images=images)
    if images is not None:
        raise UserError(f"--images goes with a table ({', '.join(TABLES)}), not with {paths[0]}")
    is_folder = Path(paths[0]).is_dir() or _is_remote_folder(paths[0])
    if not is_folder:
        return Shards(list(paths))
    if len(paths) > 1:
        raise UserError(f"one folder, or files, must be given, got {' '.join(paths)}")
    if _is_remote_folder(paths[0]):
        addresses = _remote_shards_in(paths[0])
        return _shards_by_split({a: PurePath(a.rpartition("/")[2]) for a in addresses})
    folder = Path(paths[0])
    if shards := shards_in(folder):
        return _shards_by_split({str(shard): shard.relative_to(folder) for shard in shards})
    train, val, test = (folder / split for split in SPLITS)
    if train.is_dir():
        held_out = [str(folder) if folder.is_dir() else None for folder in (val, test)]
        return Folder(str(train), val=held_out[0], test=held_out[1])
    return Folder(paths[0])


def _is_remote_folder(path: str) -> bool:
    """Tell an address that names no file and no pattern of files."""
    return is_remote(path) and not re.search(r"[.*?\[{]|::", path.rstrip("/").rpartition("/")[2])


def _remote_shards_in(address: str) -> list[str]:
    files = expand(f"{address.rstrip('/')}/*", RemoteFiles())
    if shards := [file for file in files if file.endswith(TAR_SUFFIXES)]:
        return shards
    raise UserError(f"{address}: holds no tar shard")


def _shards_by_split(shards: Mapping[str, PurePath]) -> Shards:
    """Return shards, given with their paths in their folder, in splits where all are called so."""
    by_split: dict[Split | None, list[str]] = defaultdict(list)
    for shard, path in shards.items():
        by_split[_split_of(path)].append(shard)
    if None in by_split or "train" not in by_split:
        return Shards(list(shards))
    return Shards(by_split["train"], by_split["val"], by_split["test"])


def _split_of(shard: PurePath) -> Split | None:
    """Return the split that the folder of a shard is called, or that its name begins with."""
    first = shard.parts[0]
    is_name = len(shard.parts) == 1
    return next((s for s in SPLITS if first == s or (is_name and first.startswith(s))), None)


def _configured(config: Config, files: Sequence[str]) -> ChosenSource:
    key: Key = ("data", "init_args", "source") if "data" in config.values else ("source",)
    if "class_path" in config.values:
        key = ()
    node = at(config.values, key)
    if node is None:
        raise UserError(
            f"{' '.join(files)}: names no source of data: neither data.init_args.source, nor "
            "source, nor a class_path"
        )
    parser = TypedParser(exit_on_error=False)
    parser.add_argument("--source", type=DataSource, required=True)
    written = {
        ("source", *path[len(key) :]): line
        for path, line in config.sources.items()
        if path[: len(key)] == key
    }
    named = Config(values={"source": node}, sources=written)
    with parsing(named, lambda: ()):
        namespace = parser.parse_object(named.values)
    with construction(named):
        source: DataSource = parser.instantiate(namespace).source
    text: str = parser.dump(namespace)
    size, upscale = (at(config.values, (*key[:-1], name)) for name in ("image_size", "upscale"))
    return ChosenSource(
        source=source,
        name=text.strip(),
        image_size=size if isinstance(size, int) else None,
        upscale=upscale is True,
    )
