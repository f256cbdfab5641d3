"""`pretzel sample` with a picture and questions, or a conversation."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_sample_command import FREE, SMALL, configuration, elsewhere, made, pixels, trained

from pretzel.cli.sample.command import main
from pretzel.errors import UserError
from pretzel.training.module import PretzelModule
from pretzel.vlm.tiny import stream as tiny

__all__ = ["elsewhere", "made"]

EXAMPLES = Path(__file__).parents[2] / "examples"
STORY = [
    {"say": "a red circle"},
    {"generate": True},
    {"say": "what shape is it?"},
    {"answer": True},
    {"image": "red.png"},
    {"say": "now make it blue"},
    {"generate": True},
    {"continue": True},
]


@pytest.fixture(autouse=True)
def files(elsewhere):
    Path("there").mkdir()
    Image.new("RGB", (8, 8), "red").save("there/red.png")
    Image.new("RGB", (9, 8), "red").save("there/wide.png")
    Path("there/bomb.png").write_bytes(empty_png(20000, 20000))
    Path("there/story.yaml").write_text(yaml.safe_dump(STORY), encoding="utf-8")


def empty_png(width, height):
    """Return a picture that says how large it is, and holds nothing."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def sample(made, *args):
    config, folder = made
    return main([*config, "--weights", str(folder / "x.safetensors"), *args])


def test_a_conversation_is_told_as_it_comes_and_written(made, capsys):
    sample(made, "--turns", "there/story.yaml", "--max_tokens", "3", "--out", "out")
    (turns,) = json.loads(Path("out/transcript.json").read_text(encoding="utf-8"))
    kinds = [next(iter(turn)) for turn in turns]
    assert kinds == ["say", "generate", "say", "answer", "image", "say", "generate", "answer"]
    pictures = [turn[kind] for turn, kind in zip(turns, kinds, strict=True)
                if kind in ("generate", "image")]  # fmt: skip
    assert pictures == ["00000.png", "00001.png", "00002.png"]
    assert all(pixels(f"out/{name}").shape == (8, 8, 3) for name in pictures)
    assert pixels("out/grid.png").shape[1] == 3 * 100
    lines = Path("out/transcript.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "say: a red circle"
    assert lines[1] == "generate: 00000.png"
    answered = turns[3]["answer"]
    told = capsys.readouterr().out
    assert f"say: what shape is it?\nanswer: {answered}\nimage\n" in told
    record = json.loads(Path("out/sampling.json").read_text())
    assert [batch["evaluations_per_block"] for batch in record["batches"]] == [[4, 4]] * 2
    assert record["writing"]["init_args"] == {"temperature": 0.0, "top_p": 1.0}


@pytest.mark.parametrize("name", ["story", "edits"])
def test_the_examples_are_conversations(made, name):
    example = EXAMPLES / f"{name}.yaml"
    sample(made, "--turns", str(example), "--max_tokens", "2", "--out", "out")
    (turns,) = json.loads(Path("out/transcript.json").read_text(encoding="utf-8"))
    assert [next(iter(turn)) for turn in turns] == [
        next(iter(step)) for step in yaml.safe_load(example.read_text())
    ]
    pictures = [pixels(f"out/{turn['generate']}") for turn in turns if "generate" in turn]
    assert not any(map(np.array_equal, pictures, pictures[1:]))


def test_questions_about_a_picture(made):
    asked = ["--question", "what color is it?", "--question", "is it a circle?"]
    options = ["--temperature", "2", "--top_p", "0.9", "--max_tokens", "3"]
    sample(made, "--image", "there/red.png", *asked, *options, "--out", "out")
    found = json.loads(Path("out/transcript.json").read_text(encoding="utf-8"))
    for turns, question in zip(found, asked[1::2], strict=True):
        assert turns[:2] == [{"image": "00000.png"}, {"say": question}]
        assert list(turns[2]) == ["answer"]
    # what is drawn at random does not depend on the other questions
    sample(made, "--image", "there/red.png", *asked[2:], *options, "--out", "alone")
    alone = json.loads(Path("alone/transcript.json").read_text(encoding="utf-8"))
    assert alone == [found[1]]


def test_a_picture_is_edited_as_often_as_asked(made):
    given = ["--image", "there/red.png", "--edit", "make it blue", "--edit", "now teal"]
    assert sample(made, *given, "--num", "2", "--out", "e") == 0
    prompts = json.loads(Path("e/prompts.json").read_text())
    assert [(p["file"], p["prompt"], p["draw"]) for p in prompts] == [
        ("00000.png", "make it blue", 0),
        ("00001.png", "make it blue", 1),
        ("00002.png", "now teal", 0),
        ("00003.png", "now teal", 1),
    ]
    assert sample(made, *given[:2], *given[4:], "--out", "f") == 0
    assert np.array_equal(pixels("f/00000.png"), pixels("e/00002.png"))
    assert not np.array_equal(pixels("e/00002.png"), pixels("e/00003.png"))
    with pytest.raises(UserError, match="--edit must be given together with --image FILE"):
        sample(made, "--edit", "make it blue")


def test_a_picture_of_any_size_is_cropped_and_resized(made):
    for name in ("red", "wide"):
        sample(made, "--image", f"there/{name}.png", "--max_tokens", "2", "--out", name)
    answers = [json.loads(Path(f"{name}/transcript.json").read_text()) for name in ("red", "wide")]
    assert answers[0][0][1] == answers[1][0][1]  # all of it is red


def test_a_picture_without_a_question_is_described(made):
    sample(made, "--image", "there/red.png", "--max_tokens", "2", "--out", "out")
    (turns,) = json.loads(Path("out/transcript.json").read_text(encoding="utf-8"))
    assert [next(iter(turn)) for turn in turns] == ["image", "answer"]


@pytest.mark.parametrize(
    ("steps", "args", "expected"),
    [
        (None, ["--image", "there/none.png"], r"--image: there/none\.png: cannot be read as an"),
        (None, ["--image", "there/story.yaml"], r"story\.yaml: cannot be read as an image"),
        (None, ["--question", "why?", "--prompt", "a"], r"--question must be asked about a pict"),
        (None, ["--prompt", "a", "--temperature", "1"], r"--temperature must be given together"),
        (None, ["--image", "there/red.png", "--num", "2"], r"--num must be given together with"),
        (None, ["--image", "there/red.png", "--top_p", "2"], r"top_p must be above 0 and at most"),
        (None, ["--turns", "none.yaml"], r"--turns: none\.yaml: cannot be read"),
        ({"say": "a"}, [], r"must be a list of steps"),
        ([], [], r"must be a list of steps"),
        ([{"says": "a"}], [], r"step 1 must be one of say, .*, got 'says'; did you mean 'say'\?"),
        ([{"say": "a"}, "answer"], [], r"step 2 must be one of .* with its value, got 'answer'"),
        ([{"generate": False}], [], r"step 1: generate must be given true, got False"),
        ([{"say": 3}], [], r"step 1: say must be given a text, got 3"),
        ([{"image": "none.png"}], [], r"step 1: .*none\.png: cannot be read as an image"),
        (None, ["--image", "there/bomb.png"], r"bomb\.png: cannot be read as an image \(.*limit"),
        ([{"answer": True}], [], r"answer must follow a text or an image"),
        ([{"say": ""}, {"answer": True}], [], r"answer must follow a text or an image"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_write_nothing(made, steps, args, expected):
    if steps is not None:
        Path("there/wrong.yaml").write_text(yaml.safe_dump(steps))
        args = ["--turns", "there/wrong.yaml"]
    with pytest.raises(UserError, match=expected) as refused:
        sample(made, *args, "--out", "out")
    assert "\n" not in str(refused.value)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--turns", "there/silent.yaml"], r"answer must follow a text or an image"),
        ([], r"--prompt or --prompts must be given"),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_checked_before_any_weight_is_read(made, monkeypatch, args, expected):
    Path("there/silent.yaml").write_text(yaml.safe_dump([{"answer": True}]))

    def without_memory(path, **how):
        assert torch.get_default_device().type == "meta"
        return load_tiny(path, **how)

    load_tiny = tiny.load_weights
    monkeypatch.setattr(tiny, "load_weights", without_memory)
    monkeypatch.setattr(PretzelModule, "load_weights", lambda self, path: pytest.fail("read"))
    with pytest.raises(UserError, match=expected):
        sample(made, *args, "--out", "out")


def test_a_part_that_takes_memory_is_checked_when_it_has_it(made, monkeypatch):
    def refuses(path, **how):
        if torch.get_default_device().type == "meta":
            raise NotImplementedError("no such kernel on the meta device")
        return load_tiny(path, **how)

    load_tiny = tiny.load_weights
    monkeypatch.setattr(tiny, "load_weights", refuses)
    Path("there/silent.yaml").write_text(yaml.safe_dump([{"answer": True}]))
    with pytest.raises(UserError, match=r"answer must follow a text or an image"):
        sample(made, "--turns", "there/silent.yaml", "--out", "out")


def test_a_model_that_cannot_is_refused_before_anything_is_drawn(tmp_path):
    config = configuration(tmp_path / "free.yaml", SMALL | FREE)
    Path("overlay.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"learning_rate_scales": {}}}})
    )
    config += ["-c", "overlay.yaml"]
    trained(config).export(tmp_path / "free.safetensors")
    arguments = [*config, "--weights", "free.safetensors", "--turns", "two.yaml", "--out", "out"]
    for steps, expected in (
        (
            [{"generate": True}, {"generate": True}],
            "Unconditional models one image in a sequence, got 2",
        ),
        ([{"generate": True}, {"answer": True}], "answers questions, got Unconditional"),
    ):
        Path("two.yaml").write_text(yaml.safe_dump(steps))
        with pytest.raises(UserError, match=expected):
            main(arguments)
        assert not Path("out").exists()


def test_a_script_is_checked_without_torch():
    code = (
        "import sys; from pathlib import Path\n"
        "from pretzel.cli.sample.script import read_script\n"
        "read_script(Path('there/story.yaml')); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
