"""`pretzel evaluate`: the figures of a run outside its training, and of folders of pictures."""

import base64
import json
import re

import pytest
import torch
import yaml
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from callbacks import PictureFolder, RealPictures
from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.media import Pictures

FEW = """
callbacks:
  - class_path: callbacks.NonFiniteGuard
  - class_path: callbacks.VQAAccuracy
    init_args: {num_questions: 8, num_validation_questions: 8, blind_baseline: false}
"""
METRICS = f"""{FEW}
  - class_path: Likelihood
  - class_path: callbacks.Generation
    init_args:
      num_images: 20
      metrics:
        - class_path: callbacks.FID
          init_args: {{extractor: {{class_path: callbacks.PooledPixels, init_args: {{size: 2}}}}}}
"""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    path = tmp_path_factory.mktemp("metrics") / "metrics.yaml"
    path.write_text(METRICS)
    return path


def evaluated(folder):
    return json.loads((folder / "evaluation.json").read_text())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_the_figures_of_a_run_are_those_of_the_command(run, metrics, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--split", "val", "--metrics", str(metrics), "--out", "a"]
    assert main(["evaluate", str(run), *words]) == 0
    printed = capsys.readouterr().out
    assert "val/vqa " in printed
    assert "Averaged weights (EMA): decay 0.5" in printed
    found = evaluated(tmp_path / "a")
    assert found["metrics"].keys() >= {"val/vqa", "val/nll_excess_bits_per_dim", "val/fid_pixels2"}
    assert found["facts"].keys() == {*found["metrics"]}
    assert found["ema"] == found["facts"]["val/fid_pixels2"]["ema"] == "decay 0.5"
    own = yaml.safe_load((run / "config.yaml").read_text())
    own["trainer"] |= {"callbacks": yaml.safe_load(METRICS)["callbacks"], "limit_val_batches": None}
    own["trainer"]["logger"] = {"class_path": "lightning.pytorch.loggers.CSVLogger",
                                "init_args": {"save_dir": "logs", "name": ""}}  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    assert main(["validate", "-c", "own.yaml", "--ckpt_path", checkpoint]) == 0
    names, values = (tmp_path / "logs/version_0/metrics.csv").read_text().splitlines()
    validated = dict(zip(names.split(","), values.split(","), strict=True))
    for name, value in found["metrics"].items():
        if "seconds" not in name:
            assert value == pytest.approx(float(validated[name]), rel=1e-6), name


def test_a_checkpoint_with_other_data_and_guidance(run, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "few.yaml").write_text(FEW)
    checkpoint = run / "checkpoints" / "last.ckpt"
    words = ["--metrics", str(tmp_path / "few.yaml"), "--split", "val", "--out", str(out)]
    words += ["-c", str(run / "config.yaml"), "--model.guidance.weight", "1"]
    assert main(["evaluate", str(checkpoint), *words]) == 0
    assert evaluated(out)["metrics"].keys() >= {"val/vqa", "val/vqa_n"}
    kept = yaml.safe_load((out / "config.yaml").read_text())
    assert kept["model"]["init_args"]["guidance"]["init_args"]["weight"] == 1


class Pooled(FeatureExtractorBase):
    """Features of torch-fidelity's that are mean colours of fields."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
        return ("means",)

    def forward(self, images):
        features = torch.nn.functional.adaptive_avg_pool2d(images / 127.5 - 1, 2).flatten(1)
        return (features,)


def write_pictures(folder, count, seed, size=(8, 8)):
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        shade = torch.rand(3, 2, 2, generator=generator)[None] * 2 - 1
        picture = torch.nn.functional.interpolate(shade, size, mode="bilinear")[0]
        Pictures(size[0]).save(Pictures(size[0]).output(picture), folder / f"{i:03}.png")


@pytest.mark.filterwarnings("ignore:Generation. kid_pixels2 needs at least 100")
def test_pictures_get_the_fid_that_torch_fidelity_gives_them(tmp_path, capsys):
    metrics = tmp_path / "metrics.yaml"
    # of subsets of 100 images, which there are not
    metrics.write_text(METRICS + METRICS[METRICS.index("        - ") :].replace("FID", "KID"))
    write_pictures(tmp_path / "generated", 60, 0, (8, 12))
    write_pictures(tmp_path / "real", 70, 1, (8, 12))
    words = ["--metrics", str(metrics), "--real", str(tmp_path / "real")]
    words += ["--out", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "generated"), *words]) == 0
    assert "n/a: Likelihood: a folder of pictures has no model" in capsys.readouterr().out
    assert evaluated(tmp_path / "out")["not_measured"].keys() >= {"Likelihood", "KID"}
    found = evaluated(tmp_path / "out")["metrics"]
    register_feature_extractor("pooled", Pooled)
    expected = calculate_metrics(
        input1=str(tmp_path / "generated"), input2=str(tmp_path / "real"), fid=True, cuda=False,
        feature_extractor="pooled", feature_layer_fid="means", verbose=False, cache=False,
        save_cpu_ram=True,
    )["frechet_inception_distance"]  # fmt: skip
    assert found["test/fid_pixels2"] == pytest.approx(expected, rel=1e-4)
    assert (found["test/fid_pixels2_n"], found["test/fid_pixels2_n_real"]) == (60, 70)
    assert "test/seconds_per_image" not in found  # reading a file is not sampling


def test_prompts_go_with_their_pictures(run, tmp_path):
    words = ["--num", "2", "--out", str(tmp_path / "own")]
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    prompts = ["--prompt", "a red circle", "--prompt", "a teal triangle"]
    assert main(["sample", "--ckpt_path", checkpoint, *prompts, *words]) == 0
    pictures = PictureFolder(str(tmp_path / "own"))
    assert sorted(pictures.prompts) == ["a red circle"] * 2 + ["a teal triangle"] * 2
    assert pictures.sample(pictures.prompts, stream_key=("x", 0)).shape == (4, 3, 8, 8)
    write_pictures(tmp_path / "texts", 2, 0)
    (tmp_path / "texts" / "001.txt").write_text(" a blue circle\n")
    assert PictureFolder(str(tmp_path / "texts")).prompts == ["", "a blue circle"]
    samples = list(RealPictures(str(tmp_path / "texts")).evaluation_samples())
    assert [sample.caption for sample in samples] == ["", "a blue circle"]


def test_a_suite_is_asked_of_a_run(run, tmp_path):
    write_pictures(tmp_path / "images", 2, 0)
    lines = [{"image": f"00{n // 2}.png", "text": "is there a circle?", "label": label}
             for n, label in enumerate(("yes", "no", "yes"))]  # fmt: skip
    (tmp_path / "pope.json").write_text("\n".join(map(json.dumps, lines)))
    files = {
        "questions": {"random": str(tmp_path / "pope.json")},
        "images": str(tmp_path / "images"),
    }
    source = {"class_path": "datamodules.POPE", "init_args": files}
    (tmp_path / "suite.yaml").write_text(
        yaml.safe_dump({"data": {"init_args": {"source": source}}})
    )
    asked = {"scoring": {"class_path": "callbacks.POPEScoring"}, "blind_baseline": False,
             "answering": {"class_path": "callbacks.AmongChoices",
                           "init_args": {"choices": ["yes", "no"]}}}  # fmt: skip
    metric = {"class_path": "callbacks.VQAAccuracy", "init_args": asked}
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump({"callbacks": [metric]}))
    words = ["-c", str(tmp_path / "suite.yaml"), "--metrics", str(tmp_path / "metrics.yaml")]
    assert main(["evaluate", str(run), *words, "--out", str(tmp_path / "out")]) == 0
    found = evaluated(tmp_path / "out")
    assert found["metrics"]["test/pope_n"] == 3
    # the same question about the same image has one answer, right once and wrong once
    right = found["metrics"]["test/pope_accuracy_random"] * 3
    assert right == pytest.approx(1) or right == pytest.approx(2)
    assert found["facts"]["test/pope_f1_random"] == {
        "n": 3, "answers": "likeliest of 2 choices, sum over tokens", "suite": "POPE: pope.json",
        "ema": "decay 0.5",
    }  # fmt: skip
    (tmp_path / "pope.json").write_text("[]")
    assert main(["evaluate", str(run), *words, "--out", str(tmp_path / "again")]) == 2


def suite_files(folder):
    """Write small files of VQAv2, MMBench and SEED-Bench; return data and metrics of each."""
    write_pictures(folder / "images", 2, 0)
    asked = [{"image_id": n, "question": "is it red?", "question_id": n} for n in (0, 1)]
    answers = {"answers": [{"answer": "yes"}] * 10, "question_type": "is it"}
    annotated = [
        {"question_id": n, "image_id": n, "answer_type": "yes/no"} | answers for n in (0, 1)
    ]
    seed = {"data_type": "image", "data_id": "001.png", "question": "what?", "answer": "B",
            "question_type_id": 5}  # fmt: skip
    seed |= {f"choice_{letter}": f"{letter} shape" for letter in "abcd"}
    for name, content in {
        "questions": {"questions": asked}, "annotations": {"annotations": annotated},
        "seed": {"questions": [seed], "question_type": {"Counting": 5}},
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content))
    picture = base64.b64encode((folder / "images" / "000.png").read_bytes()).decode()
    table = [["index", "question", "A", "B", "answer", "category", "l2-category", "image"],
             ["3", "what?", "cat", "dog", "B", "ocr", "fine", picture]]  # fmt: skip
    (folder / "mmbench.tsv").write_text("\n".join(map("\t".join, table)))
    images = {"images": str(folder / "images")}
    own = {"class_path": "callbacks.OwnChoices"}
    return {
        "VQAv2": (images | {"questions": str(folder / "questions.json"),
                            "annotations": str(folder / "annotations.json")}, {}),
        "MMBench": ({"table": str(folder / "mmbench.tsv")},
                    {"scoring": {"class_path": "callbacks.MMBenchScoring"},
                     "answering": own | {"init_args": {"letters": True}}}),
        "SEEDBench": (images | {"questions": str(folder / "seed.json")},
                      {"scoring": {"class_path": "callbacks.SEEDBenchScoring"}, "answering": own}),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("suite", "logged"),
    [
        ("VQAv2", {"vqa", "vqa_exact", "vqa_yes_no", "vqa_type_is_it", "vqa_n"}),
        ("MMBench", {"mmbench", "mmbench_vanilla", "mmbench_rotations", "mmbench_category_ocr",
                     "mmbench_ability_fine", "mmbench_n"}),
        ("SEEDBench", {"seed_bench", "seed_bench_type_counting", "seed_bench_n"}),
    ],
)  # fmt: skip
def test_every_suite_is_two_files_of_yaml(suite, logged, run, tmp_path):
    files, asked = suite_files(tmp_path)[suite]
    source = {"class_path": f"datamodules.{suite}", "init_args": files}
    metric = {"class_path": "callbacks.VQAAccuracy", "init_args": asked | {"blind_baseline": False}}
    (tmp_path / "suite.yaml").write_text(
        yaml.safe_dump({"data": {"init_args": {"source": source}}})
    )
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump({"callbacks": [metric]}))
    words = ["-c", str(tmp_path / "suite.yaml"), "--metrics", str(tmp_path / "metrics.yaml")]
    assert main(["evaluate", str(run), *words, "--out", str(tmp_path / "out")]) == 0
    found = evaluated(tmp_path / "out")
    assert found["metrics"].keys() == {f"test/{name}" for name in logged}
    assert all(0 <= value <= 2 for value in found["metrics"].values())
    assert found["facts"][f"test/{min(logged, key=len)}"]["suite"].startswith(suite)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"file": "000.png", "prompt": None}, "must be a list of {file, prompt}"),
        ({"file": "000.png", "prompt": 3}, "must be a list of {file, prompt}"),
        ({"file": "../pictures/000.png", "prompt": "a"}, "must name files beside it"),
        ({"file": "001.png", "prompt": "a"}, "001.png: cannot be read as an image"),
        ([["000.png", "a"]], "must be a list of {file, prompt}"),
    ],
)
def test_prompts_that_are_none_are_refused(entry, rule, tmp_path):
    write_pictures(tmp_path / "pictures", 1, 0)
    (tmp_path / "pictures" / "prompts.json").write_text(json.dumps([entry]))
    with pytest.raises(UserError, match=re.escape(rule)):
        PictureFolder(str(tmp_path / "pictures"))


def test_mistakes_are_one_sentence(run, metrics, tmp_path, capsys):
    def refused(*words):
        assert main(["evaluate", *map(str, words)]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    (tmp_path / "empty").mkdir()
    (tmp_path / "none.yaml").write_text("callbacks: [callbacks.EMAWeightAveraging]")
    write_pictures(tmp_path / "pictures", 2, 0)
    checkpoint = run / "checkpoints" / "last.ckpt"
    out = "--out", tmp_path / "out"
    pictures = tmp_path / "pictures"
    assert "neither a run nor an export" in refused(tmp_path / "empty", *out)
    assert "empty: neither a run nor" in refused(tmp_path / "empty", "--real", pictures, *out)
    assert "nowhere: no such run" in refused(tmp_path / "nowhere", "--real", pictures, *out)
    assert "keeps no configuration of its data" in refused(checkpoint, "--metrics", metrics, *out)
    assert "none.yaml: nothing in it measures" in refused(
        run, "--metrics", tmp_path / "none.yaml", *out
    )
    assert "give --metrics" in refused(pictures, *out)
    assert "pictures alone" in refused(run, "--real", pictures, "--metrics", metrics, *out)
    assert "unknown argument '--metric'" in refused(run, "--metric", metrics, *out)
    assert "there are no real pictures" in refused(pictures, "--metrics", metrics, *out)
    write_pictures(tmp_path / "other", 2, 0, (4, 4))
    (tmp_path / "other" / "000.png").rename(tmp_path / "pictures" / "002.png")
    found = refused(pictures, "--real", tmp_path / "other", "--metrics", metrics, *out)
    assert "must have one size" in found
    assert not (tmp_path / "out").exists()
