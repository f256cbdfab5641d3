"""Writes an inspection: contact sheets as PNG, and one HTML page without network or script."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from datamodules.sources.source import Split
from datamodules.tools import inspect_texts
from datamodules.tools.cards import write_cards
from datamodules.tools.summary import Summary
from pretzel.ablation import report
from pretzel.files.atomic import write_text

PAGE = "inspect.html"


def write_report(folder: Path, name: str, summaries: Mapping[Split, Summary]) -> list[Path]:
    """Write the contact sheet of each split and the page; return their paths.

    Raises:
        UserError: If the folder cannot be written.
    """
    write_text(folder / PAGE, page(name, summaries))
    paths = []
    for split, summary in summaries.items():
        if summary.picks:
            paths.append(folder / f"sheet-{split}.png")
            title = f"{split}: {len(summary.picks)} of {summary.samples:,} samples"
            cards = [inspect_texts.card_of(pick) for pick in summary.picks]
            write_cards(cards, title, paths[-1])
    return [*paths, folder / PAGE]


def page(name: str, summaries: Mapping[Split, Summary]) -> str:
    """Return the page, filled into ``inspect.html.j2`` beside this file."""
    styles = [Path(folder) for folder in report.__path__]  # page.css, the report's
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *styles]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["address"] = _address
    return environment.get_template("inspect.html.j2").render(
        name=name, summaries=summaries, texts=inspect_texts
    )


def _address(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    """Return a picture as a data address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
