"""Text and special tokens; mistakes in one sentence, before weights are read."""

import json
import re
import shutil

import pytest
import torch
import transformers
from huggingface_tiny import CONFIGS, TEXT, VOCAB, save_tokenizer, save_vlm, tiny_vlm

from pretzel.errors import UserError
from pretzel.sequence.special_tokens import SpecialTokens
from pretzel.vlm.huggingface import HuggingFaceVLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plain language model, whose tokenizer knows nothing of images."""
    path = tmp_path_factory.mktemp("llama")
    save_vlm(path, "llama")
    return str(path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwen")
    save_vlm(path, "qwen3_vl", vision_tokens=True)
    return str(path)


def test_text_goes_there_and_back(folder):
    vlm = HuggingFaceVLM(folder)
    ids = vlm.encode_text("a red circle")
    assert vlm.decode_text(ids) == "a red circle"
    assert ids == HuggingFaceVLM(config=CONFIGS["llama"], tokenizer=folder).encode_text(
        "a red circle"
    )
    ending = [vlm.special.begin_of_image, vlm.special.end_of_text, vlm.special.pad, VOCAB + 1]
    assert vlm.decode_text([*ids, *ending]) == "a red circle"


def test_no_text_can_spell_a_special_token(qwen):
    vlm = HuggingFaceVLM(qwen)
    special = set(vars(vlm.special).values())
    for token in ("<|im_end|>", "<|vision_start|>", "<|endoftext|>"):
        assert not special & set(vlm.encode_text(f"a {token} circle"))


def test_a_plain_language_model_gets_new_tokens_for_images(folder):
    special = HuggingFaceVLM(folder).special
    expected = SpecialTokens(pad=0, begin_of_image=VOCAB, end_of_image=VOCAB + 1, end_of_text=1)
    assert special == expected
    assert HuggingFaceVLM(folder).num_new_tokens == 2


def test_the_familys_tokens_are_taken_where_the_tokenizer_has_them(qwen):
    vlm = HuggingFaceVLM(qwen)
    ids = vlm.tokenizer.convert_tokens_to_ids(
        ["<|vision_start|>", "<|vision_end|>", "<|im_end|>", "<|endoftext|>"]
    )
    special = vlm.special
    assert ids == [
        special.begin_of_image, special.end_of_image, special.end_of_text, special.pad,
    ]  # fmt: skip
    assert vlm.num_new_tokens == 0


def test_tokens_can_be_chosen(qwen):
    roles = ("pad", "begin_of_image", "end_of_image", "end_of_text")
    names = ["<|im_end|>", "<|vision_end|>", "<|vision_start|>", "<|endoftext|>"]
    vlm = HuggingFaceVLM(qwen, **dict(zip(roles, names, strict=True)))
    assert list(vars(vlm.special).values()) == vlm.tokenizer.convert_tokens_to_ids(names)
    assert vlm.identity != HuggingFaceVLM(qwen).identity
    assert HuggingFaceVLM(qwen, pad="<|endoftext|>").identity == HuggingFaceVLM(qwen).identity


def test_a_token_that_a_text_can_spell_is_refused(folder, tmp_path):
    for token in ("red", "?", "<unk>"):  # an unknown word is spelled by any
        refused(
            f"begin_of_image must be a special token.*got {re.escape(repr(token))}",
            folder, begin_of_image=token,
        )  # fmt: skip
    # declared special, but a word of the vocabulary all the same
    from transformers import PreTrainedTokenizerFast

    spelled = PreTrainedTokenizerFast.from_pretrained(
        folder, extra_special_tokens={"image_token": "red"}
    )
    spelled.save_pretrained(tmp_path)
    source = {"config": CONFIGS["llama"], "tokenizer": str(tmp_path)}
    refused("begin_of_image must be a special token.*got 'red'", **source, begin_of_image="red")


def test_a_configuration_names_its_special_tokens_itself():
    special = {"eos_token_id": [7, 9], "pad_token_id": 3}
    config = {
        **CONFIGS["qwen2_5_vl"], "vision_start_token_id": 5, "vision_end_token_id": 6,
        "text_config": CONFIGS["qwen2_5_vl"]["text_config"] | special,
    }  # fmt: skip
    vlm = HuggingFaceVLM(config=config)
    assert vlm.special == SpecialTokens(pad=3, begin_of_image=5, end_of_image=6, end_of_text=7)
    vlm = tiny_vlm("qwen2_5_vl")  # ids of the large vocabulary are not those of a small one
    assert vlm.special.begin_of_image >= VOCAB
    with pytest.raises(UserError, match="tokenizer must be given beside config"):
        vlm.encode_text("a")


def refused(match: str, *args, **kwargs) -> None:
    with pytest.raises(UserError, match=match) as caught:
        HuggingFaceVLM(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_mistakes_are_one_sentence(folder, tmp_path):
    refused("exactly one of name and config must be given, got neither")
    refused("exactly one of name and config", folder, CONFIGS["llama"])
    refused("families idefics3, llama.*got model_type 'gpt2'", config={"model_type": "gpt2"})
    refused("got model_type None", config={"hidden_size": 3})
    refused(
        "config must be a transf.*hidden_size", config={"model_type": "llama", "hidden_size": "x"}
    )
    refused(f"name must be a hub id .* folder, .*got {tmp_path}/no", f"{tmp_path}/no")
    refused("token that the tokenizer knows, got '<image>'", folder, begin_of_image="<image>")
    refused(
        "must be different tokens",
        folder,
        **dict.fromkeys(["begin_of_image", "end_of_image"], "<|im_end|>"),
    )
    refused("beside config", config=CONFIGS["llama"], pad="a")
    refused("tokenizer must be .*got /no", config=CONFIGS["llama"], tokenizer="/no", pad="a")
    refused("device must be one of this machine.*got tpu-7", folder, device="tpu-7")
    sliding = {"model_type": "qwen2", **TEXT, "use_sliding_window": True, "max_window_layers": 0}
    refused("attend to all positions.*sliding", config=sliding | {"sliding_window": 4})
    text = {"text_config": {**TEXT, "model_type": "gemma"}}
    refused("text model of one of the kinds.*got gemma", config=CONFIGS["llava"] | text)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def offline(name, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nmore")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    refused(r"name must be a hub id that can be reached.*got some/model \(We c", "some/model")


def test_an_unknown_family_is_refused_before_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    refused(f"name={re.escape(str(tmp_path))} must be of one of the families", str(tmp_path))


def test_missing_weights_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(folder, other)
    state = load_file(other / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    refused(r"lacks model.layers.1.mlp.up_proj.weight \(1 such", str(other))
    state = load_file(f"{folder}/model.safetensors")
    up = state["model.layers.1.mlp.up_proj.weight"]
    unread = state | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(unread, other / "model.safetensors", metadata={"format": "pt"})
    assert HuggingFaceVLM(str(other)).num_layers == 3  # an old buffer
    more = state | {"model.layers.3.mlp.up_proj.weight": up.clone()}
    save_file(more, other / "model.safetensors", metadata={"format": "pt"})
    refused(r"no others.*model.layers.3.mlp.up_proj.weight \(1 such", str(other))
    (other / "model.safetensors").write_bytes(b"no weights")
    refused("safetensors weights", str(other))
    (other / "model.safetensors").unlink()
    refused("safetensors weights", str(other))


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        ("config.json", {"num_attention_heads": "x"}, "name must be a hub id.*num_attention_heads"),
        ("config.json", {"num_attention_heads": 0}, "name must be a hub id.*ZeroDivisionError"),
        ("config.json", {"layer_types": 3}, "name must be a hub id"),
        ("config.json", {"rope_parameters": []}, "name must be a hub id"),
        ("config.json", {"hidden_act": "no such"}, "name must have.*KeyError"),
        ("tokenizer_config.json", [], "tokenizer must be a hub id"),
        ("tokenizer.json", {}, "tokenizer must be a hub id"),
        ("tokenizer.json", [], "tokenizer must be a hub id"),
    ],
)
def test_folders_that_are_wrong_inside_are_one_sentence(folder, tmp_path, file, change, match):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    if change:
        change = json.loads((other / file).read_text()) | change
    (other / file).write_text(json.dumps(change))
    refused(f"(?=.*{re.escape(str(other))}){match}", str(other))


def test_a_configuration_with_wrong_numbers_is_one_sentence():
    refused("config must be .*ZeroDiv", config=CONFIGS["llama"] | {"num_attention_heads": 0})
    refused(r"config cannot be built \(Key", config=CONFIGS["llama"] | {"hidden_act": "no such"})


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(tmp_path):
    save_tokenizer(tmp_path)
    config = CONFIGS["llama"] | {"vocab_size": 4}
    vlm = HuggingFaceVLM(config=config, tokenizer=str(tmp_path))
    with pytest.raises(UserError, match="which has 4 tokens"):
        vlm.encode_text("a red circle")


@pytest.mark.skipif(torch.cuda.is_available(), reason="flash attention may be installed with a GPU")
def test_flash_attention_that_is_not_there_is_refused():
    refused("attention=flash_attention_2", config=CONFIGS["llama"], attention="flash_attention_2")


def test_code_in_a_folder_is_never_executed(tmp_path):
    save_vlm(tmp_path, "llama")
    ran = tmp_path / "ran"
    (tmp_path / "remote.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import *\n"
        "Config, Model, Words = LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
    )
    asked = {
        "config.json": {"AutoConfig": "remote.Config", "AutoModelForCausalLM": "remote.Model"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "remote.Words"]},
    }
    for file, auto_map in asked.items():
        known = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps(known | {"auto_map": auto_map}))
    vlm = HuggingFaceVLM(str(tmp_path))  # the package's own classes
    assert vlm.encode_text("red")
    assert type(vlm.model).__module__.startswith("transformers.models.llama")
    known = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(known | {"model_type": "unheard_of"}))
    refused(f"name must be .*got {tmp_path}", str(tmp_path))
    assert not ran.exists()
