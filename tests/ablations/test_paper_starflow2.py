"""STARFlow2 at paper size: counted part by part on the meta device, trained when shrunk."""

from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from test_configs import (
    ROOT,
    SHRINK_PAPER,
    built_on_meta,
    content,
    overlay,
    overlays_in_comments,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Dinov2Config, Dinov2Model, PreTrainedTokenizerFast

from pretzel.__main__ import main
from pretzel.model import Pretzel
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import fold, read

PATH = ROOT / "ablations" / "paper" / "starflow2.yaml"
WIDTH, HIDDEN, CHANNELS = 3072, 3584, 32
HEADS, KV_HEADS, HEAD_DIM = 24, 8, 128


@pytest.fixture(scope="module")
def model() -> Pretzel:
    module = built_on_meta(fold([read(PATH)]))
    assert isinstance(module.pretzel, Pretzel)
    return module.pretzel


def millions(module: torch.nn.Module, trainable: bool = True) -> float:
    return sum(p.numel() for p in module.parameters() if p.requires_grad == trainable) / 1e6


def stack(layers: int) -> int:
    """Return the parameters of a transformer, its norms included."""
    attention = WIDTH * (HEADS + 2 * KV_HEADS) * HEAD_DIM + HEADS * HEAD_DIM * WIDTH
    mlp = 3 * WIDTH * 3 * WIDTH
    return layers * (attention + mlp + 2 * WIDTH + 2 * HEAD_DIM) + WIDTH


def test_the_trainable_parameters_are_those_of_the_paper_part_by_part(model):
    ends = (CHANNELS + 1) * WIDTH + (WIDTH + 1) * 2 * CHANNELS  # input, head of mu and sigma
    expected = {
        "shallow": 2 * (stack(4) + ends + WIDTH),  # and a start token each
        "deep": stack(24) + ends,
        "adapter": (CHANNELS + 1) * HIDDEN,
        "text_input": (HIDDEN + 1) * WIDTH,
        "vlm_skip": HIDDEN * WIDTH,
        "deep_skip": WIDTH * HIDDEN,
    }
    parts = dict(model.interleaving.named_children())
    parts |= {"shallow": model.shallow, "deep": model.deep}
    for name, count in expected.items():
        print(f"{name:12} {millions(parts[name]):9.2f} M")
        assert millions(parts[name]) * 1e6 == pytest.approx(count, abs=0.5), name
    total = millions(model)
    print(f"{'total':12} {total:9.2f} M")
    assert total * 1e6 == pytest.approx(sum(expected.values()), abs=0.5)  # and nothing else
    assert total == pytest.approx(3600, rel=0.03)


def test_the_frozen_model_is_the_7b(model):
    assert millions(model.vlm) == 0
    assert millions(model.vlm, trainable=False) == pytest.approx(8292.17, abs=0.01)
    frozen = [millions(part, trainable=False) for part in (model, model.vlm, model.latent)]
    assert frozen[0] == pytest.approx(frozen[1] + frozen[2], abs=1e-6)
    assert (model.vlm.hidden_size, model.vlm.num_layers) == (HIDDEN, 28)
    assert model.vlm.num_new_tokens == 0
    assert [len(block.conditioner.layers) for block in model.shallow.blocks] == [4, 4]


def test_the_latent_space_is_the_papers_part_by_part(model):
    latent = model.latent
    assert (latent.grid, latent.channels, latent.image_size) == ((16, 16), CHANNELS, 256)
    giant = Dinov2Config(
        hidden_size=1536,
        num_hidden_layers=40,
        num_attention_heads=24,
        use_swiglu_ffn=True,
        image_size=518,
        patch_size=14,
    )
    with torch.device("meta"):
        parts = {"DINOv2-g/14": Dinov2Model(giant).requires_grad_(False)}
    parts |= dict(latent.network.named_children())
    expected = {
        "DINOv2-g/14": 1136.48,  # as published
        "bottleneck": 9.54,
        "feature_decoder": 172.40,
        "pixel_decoder": 304.61,  # a ViT-L/16 for classes: 304.33
    }
    table = PATH.read_text().split("In millions:")[1].split("Published")[0]
    for name, count in expected.items():
        print(f"{name:15} {millions(parts[name], trainable=False):9.2f} M")
        assert millions(parts[name], trainable=False) == pytest.approx(count, abs=0.005), name
        assert f"{count:,.2f}\n" in table
    whole = sum(expected.values()) - expected["DINOv2-g/14"]  # which is loaded with an image
    assert millions(latent, trainable=False) == pytest.approx(whole, abs=0.01)
    assert millions(latent) == 0


def test_the_hub_id_may_take_the_place_of_the_sizes(tmp_path):
    """The overlay that the comments of the file give."""
    _, hub = overlays_in_comments(PATH)
    (tmp_path / "hub.yaml").write_text(hub)
    config = fold([read(PATH), read(tmp_path / "hub.yaml")])
    vlm = config.values["model"]["init_args"]["pretzel"]["init_args"]["vlm"]["init_args"]
    assert vlm["name"] == vlm["tokenizer"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert vlm["config"] is None
    ParseOnlyCLI().parse("fit", config)


def test_the_other_strategy_can_be_chosen():
    lines = PATH.read_text().splitlines()
    start = lines.index("  # strategy:")
    block = [line.removeprefix("  # ") for line in lines[start:] if line.startswith("  # ")]
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--strategy", type=Strategy)
    strategy = parser.instantiate(parser.parse_object(yaml.safe_load("\n".join(block)))).strategy
    assert isinstance(strategy, ModelParallelStrategy)


SMALL_VLM = {
    "vision_start_token_id": 4,
    "vision_end_token_id": 5,
    "image_token_id": 6,
    "video_token_id": 7,
    "text_config": {
        "vocab_size": 32,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"mrope_section": [1, 1, 2]},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 1,
    },
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "fullatt_block_indexes": [0],
        "out_hidden_size": 32,
    },
}


def save_tokenizer(folder: Path) -> None:
    words = [*"0123456789", *"abcdefghij", "red", "circle", "shape"]
    vocabulary = {"<unk>": 0, **{word: i + 8 for i, word in enumerate(words)}}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>").save_pretrained(folder)


def test_it_trains_when_shrunk(tmp_path, monkeypatch):
    """Of one kind with the original: the family of the VLM, grouped heads, SwiGLU, the skips."""
    monkeypatch.chdir(tmp_path)
    save_tokenizer(tmp_path / "tokenizer")
    vlm = {
        "tokenizer": str(tmp_path / "tokenizer"),
        "dtype": "float32",
        "config": SMALL_VLM,
    }
    kv_heads = {"init_args": {"conditioner": {"init_args": {"num_kv_heads": 1}}}}
    nodes = {"vlm": {"init_args": vlm}, "shallow": kv_heads, "deep": kv_heads}
    own = {"model": {"init_args": {"pretzel": {"init_args": nodes}}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    config = content(PATH)
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"] in ("callbacks.SkipAnalysis", "callbacks.TextDrift"):
            callback["init_args"] = {"num_samples": 4}
    small = [overlay(config, tmp_path), SHRINK_PAPER, tmp_path / "own.yaml"]
    files = [argument for file in (PATH, *small) for argument in ("-c", str(file))]
    assert main(["fit", *files]) == 0
