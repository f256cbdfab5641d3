"""`pretzel data preview`: the batches of a configuration, and what becomes of their texts."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from rich.console import Console

from datamodules.tools.preview import Preview, cards, preview, show_preview, write_preview
from pretzel.errors import UserError
from pretzel.media import Pictures
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, without_past

ROOT = Path(__file__).parents[2]
BASE = str(ROOT / "ablations" / "base" / "easy_vqa.yaml")


def styles(card):
    return [(part.text, part.style) for part in card.parts if hasattr(part, "text")]


def test_a_card_tells_what_is_read_predicted_and_dropped():
    first = Document(
        key="a",
        segments=(
            Text(content="a cat"),
            Image(),
            Text(content="is it\x1b[31m?"),
            Text(content="yes", role="target"),
            Image(),
        ),
    )
    second = Document(key="b", segments=(Text(content="old", role="dropped"), Image()))
    documents = (without_past(first, 1), second)
    images = torch.stack([torch.full((3, 4, 4), -1.0), torch.full((3, 4, 4), 1.0)])
    batch = DocumentBatch(documents=documents, images=images)
    one, other = cards(batch, None, Pictures(4))
    assert styles(one) == [
        ("a cat", "dropped"),
        ("[image]", "dropped"),
        ("is it\x1b[31m?", "dropped"),
        ("yes", "dropped"),
        ("a", "note"),
    ]
    assert styles(other) == [("old", "dropped"), ("b", "note")]
    assert [c.parts[i].max() for c, i in ((one, 4), (other, 1))] == [0, 255]
    file = io.StringIO()
    show_preview(
        Preview(batches=(batch,), model=None, medium=Pictures(4)),
        "val",
        Console(file=file, width=200),
    )
    assert "val batch 0: 2 documents" in file.getvalue()
    assert "old [image 4x4] b" in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()


def test_texts_are_those_that_the_tokenizer_of_the_model_gives_back(
    write_shard, encoded, tmp_path, capsys
):
    fields = {"caption": "a RED ∞ circle", "questions": [["is it?", "yes"]]}
    shard = write_shard("a.tar", {"x.png": encoded(), "x.json": json.dumps(fields).encode()})
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        f"""
        model: {{init_args: {{pretzel: {{init_args: {{
          interleaving: {{class_path: pretzel.interleave.TextPrefix}}}}}}}}}}
        data:
          init_args:
            source: {{class_path: datamodules.Shards, init_args: {{train: {shard}}}}}
            recipe:
              class_path: datamodules.Conversations
              init_args: {{num_turns: 1, max_questions: 1, drop: 0.0}}
            image_size: 64
            upscale: true
            batch_size: 8
        """
    )
    shown = preview([BASE, str(changes)], num_batches=2)
    show_preview(shown, "train")
    assert "a red [?] circle [image 64x64] x" in capsys.readouterr().out
    paths = write_preview(shown, tmp_path / "preview", "train")
    assert [path.name for path in paths] == ["train-00.png", "train-01.png"]
    with pytest.raises(UserError, match=r"00.png: cannot be written \(.*xists\)"):
        write_preview(shown, changes, "train")  # a file
    with Picture.open(paths[1]) as sheet:
        assert (np.array(sheet) == (255, 0, 0)).all(-1).mean() > 0.1
    runs = [
        run for card in cards(shown.batches[0], shown.model, shown.medium) for run in styles(card)
    ]
    assert ("yes", "note") in runs  # behind the image: not in this model
    assert ("yes", "target") not in runs
    plain = [run for card in cards(shown.batches[0], None, shown.medium) for run in styles(card)]
    assert ("yes", "target") in plain
