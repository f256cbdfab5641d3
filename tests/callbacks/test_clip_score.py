"""CLIPScore is 100 times a cosine, on any CLIP that transformers can load."""

from pathlib import Path

import pytest
import torch
from tiny_clip import save_tiny_clip
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel, CLIPProcessor, GPT2Config, GPT2Model

from callbacks import CLIPScore
from pretzel.errors import UserError
from pretzel.media.integers import to_integers

LENGTH = 12
PROMPTS = ["a red cat", "b", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("hub") / "Tiny_CLIP", LENGTH)


def prepared(folder: Path) -> CLIPScore:
    metric = CLIPScore(str(folder))
    metric.prepare(torch.device("cpu"))
    metric.reset()
    return metric


def some_images(n: int) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def cosines(folder: Path, images: Tensor, prompts: list[str]) -> Tensor:
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    pixels = processor(images=list(to_integers(images)), return_tensors="pt")["pixel_values"]
    actual = []
    for prompt, pixel in zip(prompts, pixels, strict=True):
        text = processor.tokenizer(prompt, return_tensors="pt", truncation=True, max_length=LENGTH)
        with torch.no_grad():
            output = model(pixel_values=pixel[None], **text)
        actual.append(cosine_similarity(output.image_embeds, output.text_embeds)[0])
    return torch.stack(actual)


def test_equals_cosines_by_hand(folder: Path) -> None:
    metric, images = prepared(folder), some_images(3)
    with torch.inference_mode():
        metric.update(images[:2], PROMPTS[:2])
        metric.update(images[2:], PROMPTS[2:])
    expected = 100 * cosines(folder, images, PROMPTS)
    assert expected.std() > 0.5
    name = "clip_score_tiny-clip"
    assert metric.compute() == {
        name: pytest.approx(max(float(expected.mean()), 0), rel=1e-4),
        f"{name}_n": 3,
    }
    metric.reset()
    metric.update(images[:1], PROMPTS[:1])
    assert metric.compute()[name] == pytest.approx(max(float(expected[0]), 0), rel=1e-4)


def test_says_when_prompts_are_truncated_and_keeps_their_end_token(folder: Path) -> None:
    metric, images = prepared(folder), some_images(2)
    prompts = ["a red cat", "abcdefghijklmnop"]
    with torch.inference_mode():
        metric.update(images, prompts)
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 12 tokens"):
        values = metric.compute()
    name = "clip_score_tiny-clip"
    assert values.keys() == metric.names()
    assert values[f"{name}_truncated"] == 0.5
    expected = 100 * cosines(folder, images, prompts)
    assert values[name] == pytest.approx(max(float(expected.mean()), 0), rel=1e-4)


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        CLIPScore(str(tmp_path / "nowhere")).prepare(torch.device("cpu"))
    other = tmp_path / "gpt"
    small = GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    GPT2Model(small).save_pretrained(other)
    with pytest.raises(UserError, match="must be a CLIP, got a GPT2Model"):
        CLIPScore(str(other)).prepare(torch.device("cpu"))
    with pytest.raises(UserError, match="model must be a folder or a hub id, got ''"):
        CLIPScore("")
    with pytest.raises(UserError, match="needs at least 1 generated image"):
        prepared(folder).compute()
