"""Suites are read from files of the published formats; other versions are one sentence."""

import base64
import csv
import io
import json

import pytest
from PIL import Image

from datamodules import (
    GQA,
    MME,
    POPE,
    MMBench,
    Questions,
    SEEDBench,
    VQAv2,
    WebDatasetDataModule,
)
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
    assert [len(one.questions) for one in data(pope).evaluation_texts()] == [2, 1, 1]
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


def test_vqav2(tmp_path):
    picture(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")
    files = [str(tmp_path / f"{name}.json") for name in ("questions", "annotations")]
    asked_of = [{"image_id": 42, "question": "Where?", "question_id": n} for n in (42000, 42001)]
    answers = [{"answer": "net", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
    annotated = [
        {"question_id": n, "image_id": 42, "question_type": "none of the above", "answers": answers,
         "multiple_choice_answer": "net", "answer_type": "other"}
        for n in (42001, 42000)
    ]  # fmt: skip

    def write(name, content):
        (tmp_path / f"{name}.json").write_text(json.dumps({name: content}))

    write("questions", asked_of)
    write("annotations", annotated)
    source = VQAv2(*files, str(tmp_path / "val2014"))
    key = "COCO_val2014_000000000042"
    assert asked(source) == {key: [(("Where?", "net"), "none of the above", "other")] * 2}
    (sample,) = data(source).evaluation_samples()
    assert sample.answers == (("net",) * 10,) * 2
    assert data(source).suite == "VQAv2: questions.json, annotations.json"
    run_laws(lambda: source)
    write("annotations", annotated[:1])
    found = refusal(VQAv2(*files, str(tmp_path / "val2014")))
    assert f"annotations {files[1]!r} have no question_id 42000" in found
    write("annotations", [{"question_id": 1}])
    found = refusal(VQAv2(*files, str(tmp_path / "val2014")))
    assert "must have question_id and answers of {'answer': ...}, as in VQAv2" in found


def encoded(shade):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def mmbench_row(number, **fields):
    row = {
        "index": number, "question": "What is it?", "hint": "", "A": "cat", "B": "dog", "C": "cow",
        "D": "", "answer": "B", "category": "image_topic", "l2-category": "coarse_perception",
        "image": encoded(number % 100), "split": "dev",
    }  # fmt: skip
    return row | fields


def mmbench(tmp_path, *rows):
    file = tmp_path / "mmbench_dev.tsv"
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, {k: 0 for row in rows for k in row}, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return MMBench(str(file))


def test_mmbench_makes_all_rotations(tmp_path):
    source = mmbench(tmp_path, mmbench_row(241), mmbench_row(7, hint='two\nlines "q"', image="241"))
    first, second = data(source).evaluation_samples()
    assert (first.key, second.key) == ("241", "7")
    assert first.questions[1] == (
        "Question: What is it?\nOptions:\nA. dog\nB. cow\nC. cat\n"
        "Please select the correct answer from the options above.",
        "A",
    )
    assert [answer for _, answer in first.questions] == ["B", "A", "C"]
    assert first.choices == (("cat", "dog", "cow"), ("dog", "cow", "cat"), ("cow", "cat", "dog"))
    assert (first.question_types[0], first.answer_types[0]) == ("image_topic", "coarse_perception")
    assert second.questions[0][0].startswith('Hint: two\nlines "q"\nQuestion: What is it?\n')
    assert (second.pixels == first.pixels).all()  # by reference
    assert data(source).suite == "MMBench: mmbench_dev.tsv"
    run_laws(lambda: source)


def test_mmbench_takes_the_rotations_of_the_table(tmp_path):
    other = mmbench_row(1000241, A="cow", B="cat", C="dog", answer="C", image="241")
    source = mmbench(tmp_path, mmbench_row(241), other, mmbench_row(7))
    first, second = data(source).evaluation_samples()
    assert first.choices == (("cat", "dog", "cow"), ("cow", "cat", "dog"))
    assert [answer for _, answer in first.questions] == ["B", "C"]
    assert len(second.questions) == 1


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"index": 1, "question": "?", "A": "a", "B": "b", "image": "x"}], "row 1.answer: Field"),
        ([mmbench_row(1, answer="D")], "row 1: answer 'D' is none of its 3 choices"),
        ([mmbench_row(1, answer="")], "row 1: answer '' is none of its 3 choices"),
        ([mmbench_row(1, index="x")], "row 1.index: Input should be a valid integer"),
        ([mmbench_row(1, image="2")], "index 1: no row has the image '2'"),
        ([mmbench_row(1), mmbench_row(1)], "two rows have one index"),
        ([mmbench_row(1), mmbench_row(1000002)], "rotations of 2, which is missing"),
    ],
)
def test_another_version_of_mmbench_is_one_sentence(tmp_path, rows, why):
    found = refusal(mmbench(tmp_path, *rows))
    assert f"mmbench_dev.tsv' is of another version ({why}" in found
    assert "): table must be a table of MMBench's with answers, whose columns are index" in found


def test_pictures_in_base64_are_read_as_files_are(tmp_path):
    text = base64.b64encode(b"import os" * 20).decode()
    rows = [mmbench_row(1, image=text), mmbench_row(2, image="!" * 80), mmbench_row(3)]
    datamodule = data(mmbench(tmp_path, *rows))
    assert [sample.key for sample in datamodule.evaluation_samples()] == ["3"]
    assert [len(one.questions) for one in datamodule.evaluation_texts()] == [3, 3, 3]
    source = datamodule.source
    (damaged,) = source.read(source.shards("test")[0], 1, 2)
    assert (damaged.reason, damaged.key) == ("damaged", "2")
    (tmp_path / "other.tsv").write_text('"cut')
    assert "is no table (" in refusal(MMBench(str(tmp_path / "other.tsv")))
    assert "gone.tsv' cannot be read (No such" in refusal(MMBench(str(tmp_path / "gone.tsv")))


def seed_entry(**fields):
    return {
        "answer": "B", "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
        "choice_d": "Four", "data_id": "1454426_2591111986", "data_type": "image",
        "question": "How many towels?", "question_id": "101669", "question_type_id": 5,
    } | fields  # fmt: skip


def test_seed_bench(tmp_path):
    picture(tmp_path / "images" / "towels.jpg")
    (tmp_path / "images" / "towels.jpg").rename(tmp_path / "images" / "1454426_2591111986")
    file = tmp_path / "SEED-Bench.json"
    types = {"Instances Counting": 5, "Action Recognition": 10}

    def written(*entries, **fields):
        content = {"questions": entries, "question_type": types} | fields
        file.write_text(json.dumps(content))
        return SEEDBench(str(file), str(tmp_path / "images"))

    video = {"data_id": "9.webm", "data_type": "video", "question_type_id": 10}
    source = written(seed_entry(), video, seed_entry(question="And now?", answer="D"))
    assert asked(source) == {
        "1454426_2591111986": [
            (("How many towels?", "Two"), "Instances Counting", ""),
            (("And now?", "Four"), "Instances Counting", ""),
        ]
    }
    (sample,) = data(source).evaluation_samples()
    assert sample.choices == (("One", "Two", "Three", "Four"),) * 2
    run_laws(lambda: source)
    for entry, fields, why in [
        ({"data_type": "Single Image"}, {}, "question 0.data_type: Input should be 'image' or"),
        ({"answer": "E"}, {}, "question 0.answer: Input should be 'A', 'B', 'C' or"),
        ({"question_type_id": 7}, {}, "question 0: question_type has no 7"),
        ({}, {"question_type": [1]}, "the file.question_type: Input should be a"),
    ]:
        found = refusal(written(seed_entry(**entry), **fields))
        assert f"SEED-Bench: '{file}' is of another version ({why}" in found
        assert ": questions must be SEED-Bench.json, with questions (of data_type" in found
    assert "holds no question" in refusal(written(video))
