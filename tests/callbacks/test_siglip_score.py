"""SigLIPScore is the cosine and the match probability of any SigLIP that transformers can load."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from callbacks import CLIPFeatures, SigLIPScore
from pretzel.errors import UserError
from pretzel.media.integers import to_integers

LENGTH = 8
PROMPTS = ["red cat", "b", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random SigLIP with a tokenizer of single letters."""
    tokens = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=LENGTH, model_input_names=["input_ids"],
    )  # fmt: skip
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = sizes | {
        "vocab_size": len(tokens), "max_position_embeddings": LENGTH, "projection_size": 16
    }  # fmt: skip
    config = SiglipConfig(
        text_config=text, vision_config=sizes | {"image_size": 8, "patch_size": 4}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SiglipModel(config)
        model.logit_bias.data.fill_(-0.1)
    path = tmp_path_factory.mktemp("hub") / "Tiny_SigLIP"
    model.save_pretrained(path)
    pictures = SiglipImageProcessor(size={"height": 8, "width": 8})
    SiglipProcessor(image_processor=pictures, tokenizer=words).save_pretrained(path)
    return path


def test_equals_pairs_one_by_one(folder):
    metric = SigLIPScore(str(folder))
    metric.prepare(torch.device("cpu"))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    metric.update(images[:2], PROMPTS[:2])
    metric.update(images[2:], PROMPTS[2:])
    values = metric.compute()
    model, processor = SiglipModel.from_pretrained(folder), SiglipProcessor.from_pretrained(folder)
    cosines, matches = [], []
    for image, prompt in zip(to_integers(images), PROMPTS, strict=True):
        ids = processor.tokenizer(prompt).input_ids
        ids += [0] * (LENGTH - len(ids))
        pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            seen = model(input_ids=torch.tensor([ids]), pixel_values=pixels)
        cosines.append(float(seen.image_embeds[0] @ seen.text_embeds[0]))
        scale, bias = model.logit_scale.exp().item(), model.logit_bias.item()
        matches.append(1 / (1 + torch.e ** -(scale * cosines[-1] + bias)))
    name = "siglip_score_tiny-siglip"
    assert values == {
        name: pytest.approx(100 * sum(cosines) / 3, rel=1e-4),
        f"{name}_match": pytest.approx(sum(matches) / 3, rel=1e-4),
        f"{name}_n": 3,
    }
    assert max(cosines) - min(cosines) > 0.01
    facts = metric.facts()
    assert facts.keys() == {name, f"{name}_match"}
    assert facts[name]["extractor"] == "tiny-siglip"
    assert '"size": {"height": 8, "width": 8}' in facts[name]["resize"]
    extractor = CLIPFeatures(str(folder))
    extractor.prepare()
    features = torch.nn.functional.normalize(extractor.features(images)[2:], dim=1)
    torch.testing.assert_close(features, seen.image_embeds)


def test_says_when_prompts_are_truncated(folder):
    metric = SigLIPScore(str(folder))
    metric.prepare(torch.device("cpu"))
    metric.update(torch.zeros(2, 3, 8, 8), ["red cat", "abcdefghijklmnop"])
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 8 tokens"):
        values = metric.compute()
    assert values.keys() == metric.names()


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"SigLIPScore: model .* cannot be loaded"):
        SigLIPScore(str(tmp_path / "nowhere")).prepare(torch.device("cpu"))
    with pytest.raises(UserError, match=r"SigLIPScore: model must be .*, got ''"):
        SigLIPScore("")
