"""Suites are read from files of the published formats; other versions are one sentence."""

import json

import pytest
from PIL import Image

from datamodules import GQA, MME, POPE, Questions, WebDatasetDataModule
from pretzel.errors import UserError
from pretzel.testing import run_laws


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(path)


def data(source):
    return WebDatasetDataModule(
        source=source, recipe=Questions(1), image_size=16, batch_size=2, steps_per_epoch=1
    )


def asked(source):
    return {
        sample.key: list(
            zip(
                sample.questions,
                sample.question_types or ("",) * len(sample.questions),
                sample.answer_types or ("",) * len(sample.questions),
                strict=True,
            )
        )
        for sample in data(source).evaluation_samples()
    }


def refusal(source):
    with pytest.raises(UserError) as caught:
        source.shards("test")
    return str(caught.value)


@pytest.fixture
def pope(tmp_path):
    """Files of two splits, with questions about the same image and one that is missing."""
    for number in (1, 2):
        picture(tmp_path / "val2014" / f"COCO_val2014_{number:012d}.jpg", number)
    lines = {
        "random": [(1, "Is there a dog in the image?", "yes"), (2, "Is there a car?", "no")],
        "popular": [(1, "Is there a person in the image?", "no"), (9, "Is there a cat?", "yes")],
    }
    for split, rows in lines.items():
        text = "".join(
            json.dumps({"question_id": n, "image": f"COCO_val2014_{image:012d}.jpg",
                        "text": question, "label": label}) + "\n"
            for n, (image, question, label) in enumerate(rows, start=1)
        )  # fmt: skip
        (tmp_path / f"coco_pope_{split}.json").write_text(text)
    files = {split: str(tmp_path / f"coco_pope_{split}.json") for split in lines}
    return POPE(files, str(tmp_path / "val2014"))


def test_pope(tmp_path, pope):
    assert asked(pope) == {
        "COCO_val2014_000000000001": [
            (("Is there a dog in the image?", "yes"), "random", ""),
            (("Is there a person in the image?", "no"), "popular", ""),
        ],
        "COCO_val2014_000000000002": [(("Is there a car?", "no"), "random", "")],
    }
    assert (pope.num_samples("test"), pope.num_samples("train")) == (3, 0)
    (missing,) = [one for one in pope.read(pope.shards("test")[0], 2)]
    assert (missing.reason, missing.key) == ("no image", "COCO_val2014_000000000009")
    assert data(pope).suite == "POPE: coco_pope_random.json, coco_pope_popular.json"
    assert [len(pairs) for pairs in data(pope).answered_questions("test")] == [2, 1, 1]
    picture(tmp_path / "val2014" / "COCO_val2014_000000000009.jpg")
    run_laws(lambda: pope)


def test_another_version_of_pope_is_one_sentence(tmp_path, pope):
    images, file = str(tmp_path / "val2014"), tmp_path / "other.json"
    line = {"image": "a.jpg", "text": "?", "label": "yes"}
    for text, why in [
        (json.dumps([line]), r"is of another version \(line 1: Input should be"),
        (json.dumps(line | {"label": "maybe"}), r".*\(line 1.label: Input should be 'yes' or 'no'"),
        (json.dumps({"image": "a.jpg"}), r".*\(line 1.text: Field required"),
        ("{", r"is no JSON \(line 1: "),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=rf"POPE: '{file}' {why}.*: questions.random must be a"):
            POPE({"random": str(file)}, images).shards("test")
    assert "'gone.json' cannot be read (No such" in refusal(POPE({"a": "gone.json"}, images))
    assert "folder of images 'gone' does not exist: name it by images" in refusal(
        POPE({"random": str(file)}, "gone")
    )
    file.write_text("\n")
    assert "holds no question" in refusal(POPE({"random": str(file)}, images))
    file.write_text(json.dumps(line | {"image": "../a.jpg"}))
    assert "'../a.jpg' leads out of the folder" in refusal(POPE({"random": str(file)}, images))
    with pytest.raises(UserError, match="must name a file a split"):
        POPE({}, images)


def gqa_entry(**fields):
    return {
        "imageId": "n161313",
        "question": "Is it overcast?",
        "answer": "no",
        "fullAnswer": "No, it is clear.",
        "isBalanced": True,
        "types": {"detailed": "weatherVerify", "semantic": "global", "structural": "verify"},
    } | fields


def test_gqa(tmp_path):
    picture(tmp_path / "images" / "n161313.jpg")
    other = {"structural": "query", "semantic": "rel", "detailed": "relS"}
    entries = {"201": gqa_entry(), "202": gqa_entry(question="Who?", answer="man", types=other)}
    file = tmp_path / "testdev_balanced_questions.json"
    file.write_text(json.dumps(entries))
    source = GQA(str(file), str(tmp_path / "images"))
    assert asked(source) == {
        "n161313": [
            (("Is it overcast?", "no"), "verify", "global"),
            (("Who?", "man"), "query", "rel"),
        ]
    }
    run_laws(lambda: source)
    for content, why in [
        ([gqa_entry()], "no object"),
        ({"7": {"question": "?", "imageId": "n1", "isBalanced": True}}, "question 7.answer: "),
        ({"7": gqa_entry(types={"semantic": "rel"})}, "question 7.types.structural: Field req"),
    ]:
        file.write_text(json.dumps(content))
        found = refusal(GQA(str(file), str(tmp_path / "images")))
        assert f"is of another version ({why}" in found
        assert ": questions must be a file of GQA's questions" in found


def test_mme(tmp_path):
    folder = tmp_path / "MME_Benchmark_release_version"
    picture(folder / "existence" / "000000006040.jpg")
    picture(folder / "posters" / "images" / "tt0048028.png", 9)
    ask = "{} Please answer yes or no."
    two = f"{ask.format('Is it red?')}\tYes\n{ask.format('Is it blue?')}\tNo\n"
    texts = [folder / "existence" / "000000006040.txt",
             folder / "posters" / "questions_answers_YN" / "tt0048028.txt"]  # fmt: skip
    for text in texts:
        text.parent.mkdir(exist_ok=True)
        text.write_text(two)
    (folder / "existence" / "7.txt").write_text(two)  # without its image
    (folder / "eval_tool").mkdir()
    source = MME(str(folder))
    pairs = [(ask.format("Is it red?"), "yes"), (ask.format("Is it blue?"), "no")]
    assert asked(source) == {
        "existence/000000006040": [(pair, "existence", "") for pair in pairs],
        "posters/images/tt0048028": [(pair, "posters", "") for pair in pairs],
    }
    picture(folder / "existence" / "7.png")
    run_laws(lambda: source)
    texts[1].write_text(two.splitlines()[0])
    found = refusal(MME(str(folder)))
    assert f"MME: '{texts[1]}' is of another version (1 lines, answers ['yes']): folder mu" in found
    assert "has no folders of categories with texts: folder must be MME_B" in refusal(
        MME(str(folder / "eval_tool"))
    )
