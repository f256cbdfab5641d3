"""GenEval measures generated images by any detector, with the prompts of its file."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_clip import save_tiny_clip
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor
from world import Recaller, draw, evaluate, make_trainer

from callbacks import (
    CLIPColours,
    Generation,
    GenEval,
    MeanColours,
    ObjectDetector,
    PictureFolder,
    RealPictures,
    ShapeAccuracy,
    TransformersDetector,
)
from callbacks.easy_vqa.shape_accuracy import FOREGROUND
from callbacks.geneval.detectors import Detection
from callbacks.geneval.prompts import COLOURS
from pretzel.cli.evaluation import holds_pictures
from pretzel.errors import NothingToMeasure, UserError

CPU = torch.device("cpu")


class OneShape(ObjectDetector):
    """Finds what is darker than the ground, and calls it a shape."""

    name = "one-shape"
    classes = {"shape"}  # noqa: RUF012

    def prepare(self, device):
        pass

    def facts(self):
        return {"detector": "one shape", "weights": "none"}

    def detect(self, images, confidence):
        found = []
        for image in images:
            rows, columns = torch.where((image.amin(0) + 1) / 2 < FOREGROUND)
            edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            box = tuple(float(edge) for edge in edges)
            found.append([Detection(name="shape", score=0.8, box=box)])
        return found


def line(tag, prompt, **rest):
    return {"tag": tag, "prompt": prompt, "include": [{"class": "shape", "count": 1, **rest}]}


LINES = [
    line("single_object", "a black circle"),
    line("colors", "a red circle", color="red"),
    line("colors", "a blue rectangle", color="red"),
    line("colors", "a blue rectangle", color="blue"),
    line("counting", "a black triangle"),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)))
    return str(path)


def geneval(file, **options):
    return GenEval(file, OneShape(), MeanColours(), **options)


def test_prompts_of_the_file_are_generated_and_judged(file, tmp_path):
    generation = Generation([geneval(file)], num_images=10, batch_size=3)
    values = evaluate(tmp_path, Recaller(), [generation])
    del values["seconds_per_image"]
    name = "geneval_one-shape"
    assert values == {
        f"{name}_single_object": 1, f"{name}_single_object_n": 2,
        f"{name}_colors": pytest.approx(2 / 3), f"{name}_colors_n": 6,
        f"{name}_counting": 0, f"{name}_counting_n": 2,  # found with less than 0.9
        name: pytest.approx(5 / 9), f"{name}_n": 10,
        f"{name}_images": pytest.approx(0.6),
    }  # fmt: skip
    right = [one["values"][f"test/{name}_images"] for one in generation.sample_results]
    assert right == [1, 1, 0, 1, 0] * 2
    assert generation.facts[f"test/{name}"]["detector"] == "one shape"
    prompts = [one["texts"]["prompt"] for one in generation.sample_results]
    assert prompts == [one["prompt"] for one in LINES] * 2
    sure = Generation([geneval(file, counting_confidence=0.5)], num_images=5)
    assert evaluate(tmp_path, Recaller(), [sure])[f"{name}_counting"] == 1


def test_fewer_images_than_prompts_are_spread_over_the_file(file, tmp_path):
    metric = geneval(file)
    generation = Generation([metric], num_images=2)
    with pytest.warns(UserWarning, match="mean of all tasks, but counting has no image"):
        values = evaluate(tmp_path, Recaller(), [generation])
    prompts = [one["texts"]["prompt"] for one in generation.sample_results]
    assert prompts == ["a black circle", "a blue rectangle"]
    assert "geneval_one-shape" not in values
    assert values["geneval_one-shape_n"] == 2
    assert metric.facts().keys() < values.keys() < metric.names() | {"seconds_per_image"}


def test_pictures_of_a_folder(file, tmp_path):
    for number, (colour, shape) in enumerate([("black", "circle"), ("blue", "rectangle")]):
        pixels = ((draw(colour, shape) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"a {colour} {shape}")
    trainer = make_trainer(tmp_path, [Generation([geneval(file)])])
    with pytest.warns(UserWarning, match="has no image"):
        trainer.test(PictureFolder(str(tmp_path)), datamodule=RealPictures(), verbose=False)
    assert trainer.callback_metrics["test/geneval_one-shape_images"] == 0.5
    (tmp_path / "0.txt").write_text("a cat")
    with pytest.raises(UserError, match="GenEval cannot judge the prompt 'a cat'"):
        trainer.test(PictureFolder(str(tmp_path)), datamodule=RealPictures(), verbose=False)


def test_a_folder_in_the_published_layout(tmp_path):
    shapes = [("black", "circle"), ("blue", "rectangle")]
    for number, (one, (colour, shape)) in enumerate(zip((LINES[0], LINES[3]), shapes, strict=True)):
        samples = tmp_path / f"{number:05}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(one))
        pixels = ((draw(colour, shape) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        for sample in range(2 + number):
            Image.fromarray(pixels).save(samples / f"{sample:04}.png")
        Image.fromarray(pixels[::2]).save(samples.parent / "grid.png")  # which does not count
    (tmp_path / "notes").mkdir()
    assert holds_pictures(tmp_path)
    assert not holds_pictures(tmp_path / "notes")
    trainer = make_trainer(tmp_path, [Generation([geneval(str(tmp_path))])])
    trainer.test(PictureFolder(str(tmp_path)), datamodule=RealPictures(), verbose=False)
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    name = "test/geneval_one-shape"
    assert [values[f"{name}{end}"] for end in ("_n", "_single_object_n", "_colors_n")] == [5, 2, 3]
    assert values[name] == 1
    keys = [one.key for one in RealPictures(str(tmp_path)).evaluation_samples()]
    assert keys[:3] == [
        "00000/samples/0000.png",
        "00000/samples/0001.png",
        "00001/samples/0000.png",
    ]
    for sample in (tmp_path / "00001" / "samples").iterdir():
        sample.unlink()
    with pytest.raises(UserError, match=r"00001: must have images of its prompt, samples/0000.png"):
        PictureFolder(str(tmp_path))
    (tmp_path / "00000" / "metadata.jsonl").write_text("[]")
    with pytest.raises(UserError, match=r"metadata.jsonl: must be an object of JSON with a prompt"):
        PictureFolder(str(tmp_path))
    with pytest.raises(UserError, match=r"must be a file of GenEval's, or a folder of 00000/meta"):
        geneval(str(tmp_path / "notes")).own_prompts()


def test_mistakes_are_named_before_training(file, tmp_path):
    with pytest.raises(UserError, match="GenEval: max_overlap must be between 0 and 1, got 2"):
        geneval(file, max_overlap=2.0)
    Path(file).write_text(json.dumps(line("colors", "a photo")))
    with pytest.raises(UserError, match="ShapeAccuracy cannot judge the prompt"):
        evaluate(tmp_path, Recaller(), [Generation([geneval(file), ShapeAccuracy()])])
    Path(file).write_text(json.dumps(line("colors", "a photo", **{"class": "cat"})))
    with pytest.raises(UserError, match=r"one-shape must know .*, but 'cat' is not among its 1"):
        evaluate(tmp_path, Recaller(), [Generation([geneval(file)])])
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(LINES[0]))
    with pytest.raises(UserError, match="give GenEval and GenEval a Generation each"):
        evaluate(tmp_path, Recaller(), [Generation([geneval(file), geneval(str(other))])])
    with pytest.raises(NothingToMeasure, match="at least 1 generated image"):
        geneval(file).compute()


def test_mean_colours():
    for name in ("red", "green", "blue", "black", "brown", "yellow"):
        assert MeanColours().classify([draw(name, "circle")[:, 8:24, 8:24]], "shape") == [name]
    assert MeanColours().classify([torch.ones(3, 1, 1)], "x") == ["white"]


def test_clip_colours_are_the_nearest_mean_of_texts(tmp_path):
    path = save_tiny_clip(tmp_path / "clip", 77)
    colours = CLIPColours(str(path))
    colours.prepare(CPU)
    crops = [torch.rand(3, 9, 12) * 2 - 1, torch.zeros(3, 5, 5)]
    actual = colours.classify(crops, "bench")
    model, processor = colours._network, colours._processor
    for crop, colour in zip(crops, actual, strict=True):
        pixels = ((crop + 1) * 127.5).round().byte()
        means = []
        for name in COLOURS:
            texts = [f"a photo of a {name} bench", f"a photo of a {name}-colored bench",
                     f"a photo of a {name} object"]  # fmt: skip
            inputs = processor(text=texts, images=pixels, return_tensors="pt", padding=True)
            output = model(**inputs)
            means.append(output.text_embeds.mean(0) / output.text_embeds.mean(0).norm())
        assert COLOURS[int((torch.stack(means) @ output.image_embeds[0]).argmax())] == colour
    assert colours.facts()["colours"] == str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random YOLOS of four labels."""
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=[32, 32], patch_size=8, num_detection_tokens=5,
        id2label={0: "N/A", 1: "Bench", 2: "remote", 3: "sofa"},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = YolosForObjectDetection(config)
        for head in (model.class_labels_classifier, model.bbox_predictor):
            for weights in head.parameters():
                torch.nn.init.normal_(weights, std=0.3)
        torch.nn.init.normal_(model.vit.embeddings.detection_tokens)
        model.class_labels_classifier.layers[-1].bias.data = torch.tensor([-9.0, 0, 0, 0, 0])
    path = tmp_path_factory.mktemp("hub") / "Tiny_YOLOS"
    model.save_pretrained(path)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 32}).save_pretrained(path)
    return path


def test_detector_of_transformers(folder):
    detector = TransformersDetector(str(folder), labels={"bank": "bench"})
    assert detector.name == "tiny-yolos"
    detector.prepare(CPU)
    assert detector.classes == {"n/a", "bank", "tv remote", "couch"}
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = detector.detect(images, 0.1)
    processor, model = YolosImageProcessor.from_pretrained(folder), detector._network
    for image, own in zip(images, found, strict=True):
        inputs = processor(images=((image + 1) * 127.5).round().byte(), return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        scores = output.logits[0].softmax(-1)[:, :-1]
        expected = [
            (["n/a", "bank", "tv remote", "couch"][int(row.argmax())], float(row.max()),
             ((x - w / 2) * 24, (y - h / 2) * 16, (x + w / 2) * 24, (y + h / 2) * 16))
            for row, (x, y, w, h) in zip(scores, output.pred_boxes[0].tolist(), strict=True)
            if row.max() > 0.1
        ]  # fmt: skip
        assert len(own) == len(expected) > 1
        for one, (name, score, box) in zip(own, expected, strict=True):
            assert (one.name, one.score) == (name, pytest.approx(score, rel=1e-4))
            assert one.box == pytest.approx(box, rel=1e-3, abs=1e-3)
    assert len({one.name for own in found for one in own}) > 1
    assert detector.detect(images, 1.0) == [[], []]


def test_models_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"TransformersDetector: model .* cannot be loaded"):
        TransformersDetector(str(tmp_path)).prepare(CPU)
    detr = {"model_type": "detr", "use_timm_backbone": True, "backbone": "resnet50"}
    (tmp_path / "config.json").write_text(json.dumps(detr))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match=r"TransformersDetector: model .* (needs a|lacks)"):
        TransformersDetector(str(tmp_path)).prepare(CPU)  # timm, where it is not installed
    with pytest.raises(UserError, match=r"CLIPColours: model .* cannot be loaded"):
        CLIPColours(str(tmp_path)).prepare(CPU)
    with pytest.raises(UserError, match=r"TransformersDetector: model must be .*, got ''"):
        TransformersDetector("")
