"""Frozen means frozen: bit-identical after training, in its own precision, where it was put."""

import copy
from functools import partial

import pytest
import torch
from huggingface_tiny import CONFIGS, SEEING, save_vlm, tiny_vlm
from jsonargparse import ArgumentError, ArgumentParser
from tiny import fit, perturb, tiny_module

from pretzel.interleave import Stacked
from pretzel.model import Pretzel
from pretzel.training.module import PretzelModule
from pretzel.vlm.base import VLMStream
from pretzel.vlm.huggingface import HuggingFaceVLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vlm")
    save_vlm(path, "qwen2_5_vl", vision_tokens=True)
    return str(path)


def around(vlm: HuggingFaceVLM) -> PretzelModule:
    """The tiny module of the tests with another vision-language model."""
    module = tiny_module(optimizer=partial(torch.optim.AdamW, weight_decay=0.1))
    model = module.pretzel
    assert isinstance(model, Pretzel)
    model.vlm = vlm
    model.interleaving = Stacked(model.latent.channels, vlm.hidden_size, model.deep.width)
    model.interleaving.start_from(vlm)
    grid = model.latent.grid
    model.packer = type(model.packer)(vlm.encode_text, vlm.special, grid, vlm.image_index(grid))
    return module


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_it_is_bit_identical_after_training_and_not_saved(folder, tmp_path):
    vlm = HuggingFaceVLM(folder, gradient_checkpointing=True)
    before = {name: tensor.clone() for name, tensor in vlm.state_dict().items()}
    identity = vlm.identity
    module = around(vlm)
    perturb(module.pretzel.interleaving)
    adapter = module.pretzel.interleaving.adapter.last.weight
    start = adapter.detach().clone()
    trainer = fit(module, tmp_path, steps=2)
    assert not torch.equal(adapter, start)
    for name, tensor in vlm.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    trained = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert not {id(p) for p in vlm.parameters()} & {id(p) for p in trained}
    assert not [name for name in module.state_dict() if ".vlm." in name]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["frozen"]["vlm"] == identity
    assert not [name for name in saved["state_dict"] if ".vlm." in name]


def test_its_identity_is_its_content(folder):
    vlm, again = HuggingFaceVLM(folder), HuggingFaceVLM(folder)
    assert vlm.identity == again.identity
    configured = {"tokenizer": folder, "end_of_text": "<|im_end|>", "pad": "<|endoftext|>"}
    assert tiny_vlm("qwen2_5_vl", **configured).identity == vlm.identity
    assert tiny_vlm("qwen2_5_vl").identity != vlm.identity  # its special tokens are others
    for other in ({"min_pixels": 65}, {"max_pixels": 4095}):  # it sees images otherwise
        assert tiny_vlm("qwen2_5_vl", **configured, **other).identity != vlm.identity
    assert vlm.identity.startswith("qwen2_5_vl:")
    assert tiny_vlm("qwen2_5_vl", seed=1).identity != vlm.identity
    assert tiny_vlm("llama").identity != tiny_vlm("qwen2").identity


def test_its_constructor_is_its_configuration():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VLMStream, "vlm")
    init = {"config": CONFIGS["smolvlm"], "dtype": "bfloat16", "attention": "eager", "seed": 3}
    path = "pretzel.vlm.huggingface.HuggingFaceVLM"
    parsed = parser.parse_object({"vlm": {"class_path": path, "init_args": init}})
    made = parser.instantiate(parsed).vlm
    assert made.identity == tiny_vlm("smolvlm", dtype="bfloat16", seed=3).identity
    wrong = {"class_path": path, "init_args": init | {"attention": "fast"}}
    with pytest.raises(ArgumentError, match="attention"):
        parser.parse_object({"vlm": wrong})


def test_building_draws_no_random_numbers():
    before = torch.get_rng_state()
    tiny_vlm("llama")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_its_precision_is_its_own(dtype):
    vlm = tiny_vlm("llama", dtype=dtype)
    holder = torch.nn.ModuleDict({"vlm": vlm}).double().bfloat16()
    assert {p.dtype for p in holder.parameters()} == {getattr(torch, dtype)}
    seen = []

    def after_layer(number, h):
        seen.append(h.dtype)
        return h

    index = torch.arange(3)[None]
    for caller in (torch.float64, torch.float32):
        states = vlm(torch.ones(1, 3, 32, dtype=caller), index, after_layer=after_layer)
        assert {states.dtype, vlm.logits(states).dtype, *seen} == {caller}
        seen.clear()


def test_shorter_types_stay_close():
    x, index = torch.randn(2, 20, 32), torch.arange(20).expand(2, 20)
    exact = tiny_vlm("qwen2")(x, index)
    rounded = tiny_vlm("qwen2", dtype="bfloat16")(x, index)
    assert (rounded - exact).norm() / exact.norm() < 0.05


def test_a_cast_leaves_its_identity_and_its_rotary_frequencies():
    vlm = tiny_vlm("qwen3_vl")
    identity = vlm.identity
    moved = copy.deepcopy(vlm).bfloat16().float()
    moved._hash = ""
    assert moved.identity == identity
    x, index = torch.randn(1, 9, 32), torch.arange(9)[None] * 100
    assert torch.equal(moved(x, index), vlm(x, index))


def test_a_pinned_model_stays_where_it_is():
    pinned, free = tiny_vlm("llama", device="cpu"), tiny_vlm("llama")
    torch.nn.ModuleList([pinned, free]).to("meta")
    assert {p.device.type for p in pinned.parameters()} == {"cpu"}
    assert {p.device.type for p in free.parameters()} == {"meta"}


@pytest.mark.parametrize("family", ["llama", *SEEING])
def test_it_builds_and_runs_on_the_meta_device(family):
    with torch.device("meta"):
        vlm = tiny_vlm(family, device="cpu", dtype="bfloat16")
        states = vlm(torch.empty(2, 5, 32), torch.arange(5).expand(2, 5))
    assert {p.device.type for p in vlm.parameters()} == {"meta"}
    assert states.shape == (2, 5, 32)
    real = tiny_vlm(family)
    assert [tuple(p.shape) for p in vlm.parameters()] == [tuple(p.shape) for p in real.parameters()]
    assert (vlm.special, vlm.num_new_tokens) == (real.special, real.num_new_tokens)


def test_weights_of_a_folder_are_not_read_on_the_meta_device(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "lean", ignore=shutil.ignore_patterns("*.safetensors"))
    with torch.device("meta"):
        vlm = HuggingFaceVLM(str(tmp_path / "lean"))
    assert {p.device.type for p in vlm.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "change",
    [{"num_attention_heads": 2}, {"rms_norm_eps": 1e-2}, {"hidden_act": "gelu"}],
)
def test_the_identity_covers_what_the_weights_do_not_say(change):
    plain = HuggingFaceVLM(config=CONFIGS["llama"])
    changed = HuggingFaceVLM(config=CONFIGS["llama"] | change)
    assert changed.identity != plain.identity
    same = HuggingFaceVLM(config=dict(CONFIGS["llama"]), attention="eager")
    assert same.identity == plain.identity
