"""Shows the batches that a configuration would train on, with text as the model reads it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch import LightningDataModule
from rich.console import Console
from rich.text import Text as Styled

from datamodules.sources.source import Split
from datamodules.tools.cards import Card, Run, Style, plain, write_cards
from pretzel.ablation.planning.model_builder import PlanningCLI
from pretzel.errors import UserError
from pretzel.media import Medium, Pictures
from pretzel.model import Pretzel
from pretzel.runs.config.overlay import fold, read
from pretzel.sequence.document import DocumentBatch, Dropped, Image, Text

UNKNOWN = "[?]"
"""Stands for tokens that have no text: what the tokenizer does not know."""
_LEGEND = "black: read. green: predicted. struck out: dropped. grey: not in the model"
_TERMINAL: dict[Style, str] = {"target": "bold green", "dropped": "strike dim", "note": "dim"}


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Batches, the model that would read them (None: one without a tokenizer), their medium."""

    batches: tuple[DocumentBatch, ...]
    model: Pretzel | None
    medium: Medium


def preview(files: Sequence[str], split: Split = "train", num_batches: int = 1) -> Preview:
    """Return the first batches that ``pretzel fit`` would give to the model.

    Nothing trains: the model is built without the memory of its weights.

    Args:
        files: Configuration files, as for ``pretzel fit``.
        split: ``train``, or ``val`` or ``test`` for the batches of evaluation.
        num_batches: Number of batches, at most all.

    Raises:
        UserError: If the configuration is wrong, has no data or no such split, or its batches are
            none of documents.
    """
    cli = PlanningCLI()
    config = fold([read(file) for file in files])
    namespace = cli.parse("fit", config)
    if namespace["fit"].get("data") is None:
        raise UserError(f"{' '.join(files)}: names no data")
    data: LightningDataModule = cli.build_group("data", "fit", namespace)
    batches = list[DocumentBatch]()
    for batch in islice(_batches(data, split), num_batches):
        if not isinstance(batch, DocumentBatch):
            raise UserError(f"batches of documents can be shown, got a {type(batch).__name__}")
        batches.append(batch)
    if not batches:
        raise UserError(f"{' '.join(files)}: the data has no {split} samples")
    model = getattr(cli.build_shapes("fit", namespace), "pretzel", None)
    return Preview(
        batches=tuple(batches),
        model=model if isinstance(model, Pretzel) else None,
        medium=getattr(data, "medium", None) or Pictures(batches[0].images.shape[-1]),
    )


def write_preview(shown: Preview, folder: Path, split: Split) -> list[Path]:
    """Write a sheet of each batch into a folder; return their paths.

    Raises:
        UserError: If one cannot be written.
    """
    paths = []
    for number, batch in enumerate(shown.batches):
        paths.append(folder / f"{split}-{number:02d}.png")
        title = f"{split} batch {number}: {len(batch)} documents.  {_LEGEND}"
        write_cards(list(cards(batch, shown.model, shown.medium)), title, paths[-1])
    return paths


def show_preview(shown: Preview, split: Split, console: Console | None = None) -> None:
    """Print the texts of the batches, in the colours that the sheets have."""
    console = console or Console()
    for number, batch in enumerate(shown.batches):
        console.print(Styled(f"{split} batch {number}: {len(batch)} documents", "bold"))
        for card in cards(batch, shown.model, shown.medium):
            line = Styled("  ")
            for part in card.parts:
                if isinstance(part, Run):
                    line.append(plain(part.text), _TERMINAL.get(part.style, "")).append(" ")
                else:
                    line.append(f"[image {part.shape[1]}x{part.shape[0]}] ", "cyan")
            console.print(line)
    console.print(Styled(_LEGEND, "dim"))


def cards(batch: DocumentBatch, model: Pretzel | None, medium: Medium) -> Iterator[Card]:
    """Yield the documents of a batch as cards, text as a model's tokenizer gives it back."""
    images = (np.asarray(medium.picture(one)) for one in medium.outputs(batch.images))
    for document in batch.documents:
        parts: list[Run | UInt8[np.ndarray, "height width 3"]] = []
        modelled = document if model is None else model.view(document)
        for segment in document.segments:
            is_modelled = any(segment is one for one in modelled.segments)
            if isinstance(segment, Image):
                parts.append(next(images))
                if not is_modelled:
                    parts.append(Run(text="[image not in the model]", style="note"))
            else:
                parts += _runs(segment, model, is_modelled=is_modelled)
        yield Card(parts=(*parts, Run(text=document.key, style="note")))


def _runs(segment: Text | Dropped, model: Pretzel | None, *, is_modelled: bool) -> list[Run]:
    if isinstance(segment, Dropped):
        return [
            Run(
                text=as_read(one, model) if isinstance(one, Text) else "[image]",
                style="dropped",
            )
            for one in segment.segments
        ]
    return [Run(text=as_read(segment, model), style=segment.role if is_modelled else "note")]


def as_read(text: Text, model: Pretzel | None) -> str:
    """Return what is left of a text when a model's tokenizer has read it."""
    if model is None:
        return text.content
    tokens = model.packer.token_ids(text)
    decode = model.vlm.decode_text
    parts = groupby(tokens, key=lambda token: not decode([token]))
    read_back = [UNKNOWN if is_unknown else decode(list(run)) for is_unknown, run in parts]
    return " ".join(read_back)


def _batches(data: LightningDataModule, split: Split) -> Iterator[object]:
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    loader = getattr(data, f"{split}_dataloader")()
    for one in loader if isinstance(loader, list) else [loader]:
        yield from one
