"""DPG-Bench counts answers whose parents are yes, by any model of images and texts."""

import csv

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from world import Recaller, evaluate

from callbacks import DPGBench, Generation, TransformersJudge, YesNoJudge
from callbacks.dpg.questions import read_questions
from callbacks.dpg.score import score
from pretzel.errors import NothingToMeasure, UserError

COLUMNS = ["item_id", "text", "keywords", "proposition_id", "dependency", "category_broad",
           "category_detailed", "tuple", "question_natural_language"]  # fmt: skip
ROWS = [
    ["a", "a red circle", "", 1, "0", "entity", "whole", "entity - whole (x)", "a shape?"],
    ["a", "a red circle", "", 2, "1", "attribute", "color", "attribute - color (x)", "is it red?"],
    ["a", "a red circle", "", 3, "2", "attribute", "shape", "attribute - shape (x)", "dark?"],
    ["b", "a blue circle", "", 1, "0", "attribute", "color", "attribute - color (x)", "is it red?"],
    ["b", "a blue circle", "", 2, "1, 3", "relation", "", "relation - spatial (x, y)", "a shape?"],
    ["b", "a blue circle", "", 3, "0", "entity", "whole", "entity - whole (y)", "dark?"],
]


class Looks(YesNoJudge):
    """Says of every image that it is a shape, and whether it is red."""

    name = "looks"

    def prepare(self, device):
        pass

    def facts(self):
        return {"judge": "looks", "weights": "none"}

    def says_yes(self, image, questions):
        red = bool(image[0].mean() > image[2].mean())
        return [{"a shape?": True, "is it red?": red, "dark?": not red}[q] for q in questions]


def write(path, rows=ROWS, columns=COLUMNS):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def test_questions_count_where_their_parents_are_yes(tmp_path):
    table = write(tmp_path / "dpg.csv")
    metric = DPGBench(table, Looks())
    generation = Generation([metric], num_images=4, batch_size=3)
    values = evaluate(tmp_path, Recaller(), [generation])
    del values["seconds_per_image"]
    # a: yes, yes, no; b: no, (yes but its parent is no), yes
    assert values == {
        "dpg_looks": pytest.approx(1 / 2), "dpg_looks_n": 4,
        "dpg_looks_entity": 1, "dpg_looks_entity_n": 4,
        "dpg_looks_attribute": pytest.approx(1 / 3), "dpg_looks_attribute_n": 6,
        "dpg_looks_relation": 1, "dpg_looks_relation_n": 2,
    }  # fmt: skip
    assert metric.facts().keys() < values.keys() < metric.names()
    kept = generation.sample_results
    assert [one["texts"]["prompt"] for one in kept] == ["a red circle", "a blue circle"] * 2
    scores = [one["values"]["test/dpg_looks"] for one in kept]
    assert scores == pytest.approx([2 / 3, 1 / 3] * 2)
    assert generation.facts["test/dpg_looks"]["judge"] == "looks"
    with pytest.raises(NothingToMeasure, match="at least 1 generated image"):
        DPGBench(table, Looks()).compute()


def test_a_no_is_handed_on(tmp_path):
    questions = read_questions(write(tmp_path / "dpg.csv"), None)["a red circle"]
    assert score(questions, [False, True, True]) == 0
    assert score(questions, [True, True, True]) == 1


def test_prompts_of_a_folder(tmp_path):
    table = write(tmp_path / "dpg.csv")
    for item in "ab":
        (tmp_path / f"{item}.txt").write_text(f"long {item}\n")
    metric = DPGBench(table, Looks(), str(tmp_path))
    assert metric.own_prompts() == ["long a", "long b"]
    assert metric.accepts("long a")
    assert not metric.accepts("a red circle")
    (tmp_path / "b.txt").unlink()
    with pytest.raises(UserError, match=r"DPGBench: prompts .*b.txt' must be that of b"):
        DPGBench(table, Looks(), str(tmp_path)).own_prompts()


def test_tables_that_are_none_are_named(tmp_path):
    table = tmp_path / "dpg.csv"

    def changed(row, column, value):
        rows = [list(one) for one in ROWS]
        rows[row][COLUMNS.index(column)] = value
        return rows

    for rows, reason in (
        ([], "must have a question a line, got none"),
        (changed(1, "dependency", "x"), "line 3: proposition_id and dependency must be whole"),
        (changed(1, "dependency", "7"), "dependency of a must name its propositions, got 7"),
        (changed(0, "tuple", "taste (x)"), r"line 2: must have a question, .* got 'taste \(x\)'"),
        (changed(0, "question_natural_language", ""), "line 2: must have a question"),
        (changed(0, "text", ""), "the prompt of a must not be empty"),
        (changed(0, "text", "a blue circle"), "the prompt of b must be that of no other item"),
    ):
        with pytest.raises(UserError, match=reason):
            read_questions(write(table, rows), None)
    with pytest.raises(UserError, match="must have the column tuple"):
        read_questions(write(table, [], COLUMNS[:7]), None)
    with pytest.raises(UserError, match=r"DPGBench: questions .*nowhere' cannot be read"):
        read_questions(str(tmp_path / "nowhere"), None)


TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<image> {% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} :{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random LLaVA with a tokenizer of words."""
    tokens = ["<pad>", "<unk>", "<image>", "yes", "Yes", "no", "No", "red", "Answer", "or", ":"]
    words = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=8, patch_size=4),
        text_config=LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=len(tokens)),
        image_token_index=2, vision_feature_layer=-1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
        for weights in model.parameters():
            torch.nn.init.normal_(weights, std=0.5)
    path = tmp_path_factory.mktemp("hub") / "Tiny_LLaVA"
    model.save_pretrained(path)
    pictures = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    LlavaProcessor(
        pictures, tokenizer, patch_size=4, vision_feature_select_strategy="default",
        chat_template=TEMPLATE, num_additional_image_tokens=1,
    ).save_pretrained(path)  # fmt: skip
    return path


def test_a_model_of_transformers_says_yes_where_that_is_likelier(folder):
    judge = TransformersJudge(str(folder))
    judge.prepare(torch.device("cpu"))
    assert judge.name == "tiny-llava"
    model, processor = judge._network, judge._processor
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    asked = ["red", "or red", "no", *(f"red {'or ' * n}red" for n in range(1, 8))]  # two batches
    odds = judge.log_odds(image, asked)
    for question, own in zip(asked, odds.tolist(), strict=True):
        inputs = processor(
            text=f"<image> {question} Answer yes or no. :",
            images=((image + 1) * 127.5).round().byte(), return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            p = model(**inputs).logits[0, -1].softmax(-1)
        expected = ((p[3] + p[4]) / (p[5] + p[6])).log()
        assert own == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    assert len({round(own, 4) for own in odds.tolist()}) == len(asked)
    answers = judge.says_yes(image, asked)
    assert answers == [own > 0 for own in odds.tolist()]
    rows = model.get_output_embeddings().weight.data
    rows[[3, 4, 5, 6]] = rows[[5, 6, 3, 4]]  # yes for no
    assert judge.says_yes(image, asked) == [not answer for answer in answers]
    assert judge.facts()["judge"] == str(folder)


def test_models_that_cannot_answer_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match=r"TransformersJudge: model .* cannot be loaded"):
        TransformersJudge(str(tmp_path)).prepare(torch.device("cpu"))
    with pytest.raises(UserError, match=r"TransformersJudge: model must be .*, got ''"):
        TransformersJudge("")
