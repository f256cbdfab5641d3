"""The commands of ``pretzel data``; their options are in ``pretzel.cli.data``."""

import argparse
from pathlib import Path

from datamodules.checks import check_at_least
from datamodules.sources.source import Split
from datamodules.tools.chosen_source import chosen_source
from datamodules.tools.embed import configured
from datamodules.tools.embed import embed as embed_pictures
from datamodules.tools.index import write_indexes
from datamodules.tools.inspect import inspect as inspect_source
from datamodules.tools.inspect_page import write_report
from datamodules.tools.inspect_terminal import show
from datamodules.tools.pack import pack as pack_source
from datamodules.tools.packed_folder import SPLITS
from datamodules.tools.preview import preview as preview_batches
from datamodules.tools.preview import show_preview, write_preview
from datamodules.tools.split_rule import SplitRule
from datamodules.tools.verify import holds_shards, verify_sources
from datamodules.tools.verify import verify as verify_files
from datamodules.tools.word_pieces import learn_tokenizer
from pretzel.ablation.engines.device_slots import num_cores
from pretzel.errors import UserError
from pretzel.training.text_image_model import usable_device


def pack(options: argparse.Namespace) -> int:
    """Run ``pretzel data pack``."""
    chosen = chosen_source(options.paths, options.config, options.images)
    shares: dict[Split, float] = {}
    for split in SPLITS:
        share = getattr(options, f"{split}_share", None)
        if share is not None:
            shares[split] = share
    manifest = pack_source(
        chosen.source,
        options.out,
        name=chosen.name,
        rule=SplitRule(held_out=shares),
        license_text=_text(options.license),
        shard_size=options.shard_size,
        num_workers=_workers(options),
    )
    for split, counts in manifest["splits"].items():
        print(f"{split:6} {counts['samples']:>10,} samples in {counts['shards']} shards, "
              f"{counts['bytes'] / 1e6:,.1f} MB")  # fmt: skip
    for split in sorted(shares.keys() - manifest["splits"].keys()):
        print(f"{split:6} {0:>10,} samples: --{split}-share {shares[split]} holds out none")
    if manifest["skipped"]:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in manifest["skipped"].items())
        print(f"left out (skipped.jsonl): {reasons}")
    for source in chosen.plain_sources:
        if (field := source.caption_field) != "caption":
            print(f"captions are in {field!r}, as before: the packed shards need this "
                  "caption_field")  # fmt: skip
    if manifest["license"] is None:
        print("no --license was given: LICENSE.txt says so")
    print(f"shards: {options.out}")
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Run ``pretzel data inspect``."""
    chosen = chosen_source(options.paths, options.config, options.images)
    image_size = chosen.image_size if options.image_size is None else options.image_size
    summaries = inspect_source(
        chosen.source,
        image_size=image_size,
        upscale=chosen.upscale,
        limit=options.limit,
        num_workers=_workers(options),
    )
    show(summaries)
    for path in write_report(options.out, chosen.name, summaries):
        print(path)
    return index(options) if options.index else 0


def preview(options: argparse.Namespace) -> int:
    """Run ``pretzel data preview``."""
    check_at_least(1, batches=options.batches)
    shown = preview_batches(options.config, options.split, options.batches)
    show_preview(shown, options.split)
    for path in write_preview(shown, options.out, options.split):
        print(path)
    return 0


def index(options: argparse.Namespace) -> int:
    """Run ``pretzel data index``; 1 if a shard cannot be indexed."""
    sources = chosen_source(options.paths, options.config, options.images).plain_sources
    shards = [shard for source in sources for split in SPLITS for shard in source.shards(split)]
    indexed = write_indexes(shards, _workers(options))
    for failure in indexed.failures:
        print(f"not indexed: {failure}")
    print(f"{indexed.num_written} indexes are written")
    if indexed.num_sequential:
        print(
            f"{indexed.num_sequential} shards have none: they are no local, uncompressed tars, and "
            "are read in sequence"
        )
    return 1 if indexed.failures else 0


def embed(options: argparse.Namespace) -> int:
    """Run ``pretzel data embed``."""
    module, data = configured(options.config)
    workers = data.num_workers if options.workers is None else options.workers
    done = embed_pictures(
        module,
        data,
        dtype=options.dtype,
        num_workers=workers,
        device=usable_device(options.device),
    )
    print(f"{done.num_images:,} pictures encoded; {done.num_shards:,} shards have latents, "
          f"{done.num_present:,} had them before")  # fmt: skip
    if module.text_states is not None:
        print(f"{done.num_texts:,} text states computed")
    for folder in done.folders:
        print(f"latents: {folder}")
    return 0


def tokenizer(options: argparse.Namespace) -> int:
    """Run ``pretzel data tokenizer``."""
    check_at_least(1, limit=options.limit)
    source = chosen_source(options.paths, options.config, options.images).source
    learned = learn_tokenizer(source, options.out, size=options.size, limit=options.limit)
    print(f"{learned.vocab_size} word pieces: {options.out}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Run ``pretzel data verify``; 1 if anything is broken."""
    if options.paths and all(map(holds_shards, options.paths)):
        number, broken = verify_files(options.paths, _workers(options))
    else:
        sources = chosen_source(options.paths, options.config, options.images).plain_sources
        number, broken = verify_sources(sources, _workers(options))
    for one in broken:
        print(f"broken: {one}")
    if broken:
        print(f"{len(broken)} of {number} files are broken")
        return 1
    print(f"{number} files are whole")
    return 0


def _workers(options: argparse.Namespace) -> int:
    return num_cores() if options.workers is None else int(options.workers)


def _text(license_option: str) -> str:
    """Return the text of a licence, which may be in a file."""
    path = Path(license_option)
    try:
        if not license_option or len(license_option) > 200 or not path.is_file():
            return license_option
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"--license: {path}: cannot be read as text ({error})") from error
