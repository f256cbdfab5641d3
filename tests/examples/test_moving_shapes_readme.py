"""The videos under examples/: each command of their README."""

import json
import shlex
import sys
from pathlib import Path

from PIL import Image

from pretzel.__main__ import main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pretzel_moving_shapes"
SMALL = """
model:
  init_args:
    pretzel:
      init_args:
        shallow: {init_args: {conditioner: {init_args: {width: 32}}}}
        deep: {init_args: {conditioner: {init_args: {width: 32}}}}
        split: {init_args: {deep: 1}}
trainer.callbacks.5.num_images: 4
trainer:
  max_steps: 2
  val_check_interval: 2
  limit_val_batches: 1
  limit_test_batches: 1
"""


def test_the_commands_of_its_readme_run(tmp_path, monkeypatch):
    lines = (EXAMPLE / "README.md").read_text().splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("    ")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    run = 0
    for words in commands:
        words = [str(EXAMPLE / word) if word.endswith(".yaml") else word for word in words]
        if words[:3] == ["python", "-m", "pretzel_moving_shapes"]:
            from pretzel_moving_shapes import __main__ as command

            monkeypatch.setattr(sys, "argv", words[2:])
            command.main()
        elif words[0] == "pretzel":
            small = [] if words[1] == "sample" else ["-c", "small.yaml"]
            assert main([*words[1:], *small]) == 0
        else:
            assert words[0] in ("pip", "pytest", "tensorboard"), words
            continue
        run += 1
    assert run == 4
    steps = list(tmp_path.glob("runs/moving_shapes/**/samples/step-*/*.webp"))
    assert len(steps) == 12
    video = tmp_path / "left" / "00000.webp"
    with Image.open(video) as opened:
        assert (opened.format, opened.size, opened.n_frames) == ("WEBP", (16, 16), 6)
    assert json.loads(Path("left/prompts.json").read_text())[0]["file"] == "00000.webp"
