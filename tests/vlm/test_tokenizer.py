import json
import subprocess
import sys

import pytest
from shard_files import write_tar

from datamodules.tools.chosen_source import chosen_source
from datamodules.tools.word_pieces import training_texts
from pretzel.__main__ import main
from pretzel.vlm.tiny import TinyVLM
from pretzel.vlm.tiny.tokenizer import SHIPPED_TOKENIZER, WordPieces

COLORS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
TEXTS = [f"a {color} {shape}" for color in COLORS for shape in SHAPES] * 3 + ["is there a shape?"]


@pytest.mark.parametrize("answer", [*COLORS, *SHAPES, "yes", "no"])
def test_every_answer_is_one_token(shipped, answer):
    assert len(shipped.encode_text(answer)) == 1


@pytest.mark.parametrize(
    "text",
    [
        *(f"a {color} {shape}" for color in COLORS for shape in SHAPES),
        "a shape",
        "what color is the shape?",
        "is there not a teal shape in the image?",
        "does the image contain a triangle?",
        "grinning face with smiling eyes",
        "a zebra, perhaps",
        "mage: light tone",
    ],
)
def test_text_comes_back(shipped, text):
    assert shipped.decode_text(shipped.encode_text(text)) == text.replace(":", " :")


def test_dataset_words_are_whole(shipped):
    for question in ("what color is the rectangle?", "is no shape present?"):
        words = question.replace("?", " ?").split()
        assert len(shipped.encode_text(question)) == len(words)


def test_capitals_do_not_matter(shipped):
    assert shipped.encode_text("A Red CIRCLE") == shipped.encode_text("a red circle")


def test_no_text_spells_a_special_token(shipped):
    special = {
        shipped.special.pad,
        shipped.special.begin_of_image,
        shipped.special.end_of_image,
        shipped.special.end_of_text,
    }
    assert len(special) == 4
    tokens = shipped.encode_text("<image> </image> <end> <pad> <unknown>")
    assert tokens
    assert not special & set(tokens)


def test_decoding_leaves_special_tokens_out(shipped):
    tokens = [shipped.special.begin_of_image, *shipped.encode_text("red")]
    assert shipped.decode_text([*tokens, shipped.special.end_of_text]) == "red"


def test_unknown_letters_do_not_fail(shipped):
    assert shipped.encode_text("☃")


def test_training_does_not_depend_on_order_or_process():
    here = WordPieces.train(TEXTS, 96).serialize()
    assert WordPieces.train(reversed(TEXTS), 96).serialize() == here
    command = (
        "import sys; from pretzel.vlm.tiny.tokenizer import WordPieces;"
        "sys.stdout.write(WordPieces.train(eval(sys.stdin.read()), 96).serialize())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", command], input=repr(TEXTS), text=True, capture_output=True
    )
    assert elsewhere.stdout == here, elsewhere.stderr


def test_it_is_learned_from_any_source_without_pictures(tmp_path, capsys):
    rows = ["path,caption,question,answer", *(f"{i}.png,a crimson kite,a kite?,yes" for i in "ab")]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    (tmp_path / "shards").mkdir()
    shard = {"c.json": json.dumps({"segments": [{"text": "a heron"}, {"image": "0.png"}]}).encode()}
    write_tar(tmp_path / "shards" / "a.tar", shard | {"d.json": b"broken", "e.txt": b"a heron"})
    known = []
    for name in ("table.csv", "shards"):
        out = str(tmp_path / "out.json")
        assert main(["data", "tokenizer", str(tmp_path / name), "--out", out, "--size", "130"]) == 0
        learned = WordPieces((tmp_path / "out.json").read_text())
        words = ("crimson", "kite", "heron")
        known.append([word for word in words if len(learned.encode(word)) == 1])
    assert known == [["crimson", "kite"], ["heron"]]
    source = {
        "class_path": "datamodules.Shards",
        "init_args": {"train": f"{tmp_path}/shards/a.tar"},
    }
    part = {"name": "a", "source": source, "recipe": {"class_path": "datamodules.Captions"}}
    arguments = {"parts": [part | {"weight": 1.0}]}
    blend = {"class_path": "datamodules.Blend", "init_args": arguments}
    (tmp_path / "blend.yaml").write_text(json.dumps(blend))
    assert (
        list(training_texts(chosen_source([], [str(tmp_path / "blend.yaml")]).source))
        == ["a heron"] * 2
    )
    assert main(["data", "tokenizer", str(tmp_path / "shards"), "--out", out, "--size", "9"]) == 2
    assert "vocab_size must be at least 91" in capsys.readouterr().err


def test_weights_carry_the_shipped_tokenizer(shipped: TinyVLM):
    assert shipped.tokenizer.serialize() == SHIPPED_TOKENIZER.read_text(encoding="utf-8")
