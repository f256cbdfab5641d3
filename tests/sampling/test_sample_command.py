"""`pretzel sample`: what it draws, what it writes, what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pretzel.cli.sample.command import main
from pretzel.errors import UserError
from pretzel.media import pictures
from pretzel.media.sheet import save_png, sheet
from pretzel.testing import perturb
from pretzel.training.loading import build, trained_module
from pretzel.training.module import PretzelModule

ROOT = Path(__file__).parents[2]
BASE = str(ROOT / "ablations" / "base" / "easy_vqa.yaml")
SMALL = {
    "latent": {
        "class_path": "pretzel.latent.Pixels",
        "init_args": {"image_size": 8, "patch_size": 4, "noise": 0.05},
    },
    "split": {
        "class_path": "pretzel.flow.ExplicitSplit",
        "init_args": {"shallow": [1], "deep": 1},
    },
}
FREE = {"interleaving": {"class_path": "pretzel.interleave.Unconditional"}}
RED, SHAPE = "a red circle", "a shape/../with ünsafe name"


def configuration(path, parts):
    sampler = {"class_path": "pretzel.sampling.Sequential"}
    arguments = {"pretzel": parts, "sampler": sampler}
    path.write_text(yaml.safe_dump({"model": {"init_args": arguments}}))
    return ["-c", BASE, "-c", str(path)]


def trained(config):
    """Return the module that a configuration describes, with weights as if it had been trained."""
    module = build(config[1::2]).module
    perturb(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small configuration, and exported weights and a checkpoint for it."""
    folder = tmp_path_factory.mktemp("made")
    config = configuration(folder / "small.yaml", SMALL)
    module = trained(config)
    module.export(folder / "x.safetensors")
    averaged = {name: value.clone() for name, value in module.state_dict().items()}
    perturb(module, seed=1)
    checkpoint = {"state_dict": averaged, "current_model_state": dict(module.state_dict())}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "x.ckpt")
    return config, folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sample(made, *args, out="out"):
    config, folder = made
    assert main([*config, "--weights", str(folder / "x.safetensors"), "--out", out, *args]) == 0
    return json.loads((Path(out) / "prompts.json").read_text(encoding="utf-8"))


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_it_writes_every_image_a_sheet_and_what_was_asked_for(made, capsys):
    found = sample(made, "--prompt", RED, "--prompt", SHAPE, "--num", "2", "--seed", "7")
    assert found == [
        {"file": "00000.png", "prompt": RED, "seed": 7, "draw": 0},
        {"file": "00001.png", "prompt": RED, "seed": 7, "draw": 1},
        {"file": "00002.png", "prompt": SHAPE, "seed": 7, "draw": 0},
        {"file": "00003.png", "prompt": SHAPE, "seed": 7, "draw": 1},
    ]
    names = {one["file"] for one in found} | {"grid.png", "prompts.json", "sampling.json"}
    assert {path.name for path in Path("out").iterdir()} == names
    images = [pixels(Path("out") / one["file"]) for one in found]
    assert all(image.shape == (8, 8, 3) for image in images)
    assert len({image.tobytes() for image in images}) == 4
    # two columns of 96 px cells, as many as there are draws of a prompt
    assert pixels("out/grid.png").shape == (2 * (96 + 18), 2 * 100, 3)
    told = capsys.readouterr().out
    for path in ("out/00000.png to 00003.png (4, seed 7)", "out/grid.png", "out/prompts.json",
                 "out/sampling.json"):  # fmt: skip
        assert path in told


def test_it_writes_how_the_images_were_sampled(made):
    arguments = ["--prompt", RED, "--num", "3", "--batch_size", "2", "--seed", "7"]
    sample(made, *arguments, "--model.guidance.weight", "0.5")
    record = json.loads(Path("out/sampling.json").read_text())
    positions = 4
    assert record["sampler"] == {
        "class_path": "pretzel.sampling.samplers.Sequential",
        "init_args": {"compile": False},
    }
    assert record["guidance"]["init_args"]["weight"] == 0.5
    assert record["denoiser"]["class_path"].startswith("pretzel.sampling.")
    assert record["state"] == {}
    assert record["seed"] == 7
    assert record["batches"] == [
        {
            "images": images,
            "evaluations_per_block": [positions] * 2,
            "provisional_per_block": [0] * 2,
        }
        for images in (2, 1)
    ]


def test_images_are_the_modules_own(made):
    sample(made, "--prompt", RED, "--seed", "7")
    config, folder = made
    module = trained_module(folder / "x.safetensors", config[1::2])
    with torch.inference_mode():
        image = module.generate([RED], [f"{RED}#0"], seed=7)[0]
    expected = ((image + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.array_equal(pixels("out/00000.png"), expected)


def test_compiled_layers_make_the_same_images(made):
    sample(made, "--prompt", RED)
    sample(made, "--prompt", RED, "--compile", out="compiled")
    plain, compiled = (pixels(Path(out) / "00000.png") for out in ("out", "compiled"))
    assert abs(plain - compiled).max() <= 1


def test_an_image_depends_neither_on_its_batch_nor_on_other_prompts(made):
    both = sample(made, "--prompt", SHAPE, "--prompt", RED, "--num", "2")
    alone = sample(made, "--prompt", RED, "--num", "2", "--batch_size", "1", out="alone")
    assert [one["prompt"] for one in both[2:]] == [RED, RED]
    for one, other in zip(both[2:], alone, strict=True):
        difference = pixels(Path("out", one["file"])) - pixels(Path("alone", other["file"]))
        assert np.abs(difference).max() <= 1  # a batch of another size rounds otherwise
    twice = sample(made, "--prompt", RED, "--prompt", RED, out="twice")
    assert [one["draw"] for one in twice] == [0, 1]


def test_a_checkpoint_gives_its_averaged_weights(made):
    config, folder = made
    sample(made, "--prompt", RED)
    arguments = ["--ckpt_path", str(folder / "x.ckpt"), "--prompt", RED, "--out", "averaged"]
    assert main([*config, *arguments]) == 0
    assert np.array_equal(pixels("out/00000.png"), pixels("averaged/00000.png"))
    module = trained_module(folder / "x.ckpt", config[1::2])
    assert isinstance(module, PretzelModule)
    assert not module.training


def test_a_checkpoint_alone_is_enough_and_another_configuration_may_replace_its_own(made):
    config, folder = made
    arguments = ["--ckpt_path", str(folder / "x.ckpt"), "--prompt", RED]
    assert main([*config, *arguments, "--out", "out"]) == 0
    assert main([*arguments, "--out", "alone"]) == 0
    assert np.array_equal(pixels("out/00000.png"), pixels("alone/00000.png"))
    assert main([*arguments, "--model.guidance.weight", "0.5", "--out", "changed"]) == 0
    record = json.loads(Path("changed/sampling.json").read_text())
    assert record["guidance"]["init_args"]["weight"] == 0.5
    Path("weak.yaml").write_text("model: {guidance: {weight: 0.25}}")
    assert main([*config, "-c", "weak.yaml", *arguments, "--out", "weak"]) == 0
    record = json.loads(Path("weak/sampling.json").read_text())
    assert record["guidance"]["init_args"]["weight"] == 0.25


def test_exported_weights_have_their_configuration_beside_them(made):
    _, folder = made
    shutil.copy(folder / "x.safetensors", "x.safetensors")
    arguments = ["--weights", "x.safetensors", "--prompt", RED, "--out", "out"]
    with pytest.raises(UserError, match=r"no config\.yaml lies beside it; name one by .* -c"):
        main(arguments)
    kept = torch.load(folder / "x.ckpt", weights_only=True)["model_config"]
    Path("config.yaml").write_text(yaml.safe_dump({"model": kept}))
    assert main(arguments) == 0


def test_prompts_from_a_file_and_overrides_as_for_fit(made):
    Path("prompts.txt").write_text(f"{RED}\n\n  {SHAPE} \n", encoding="utf-8")
    found = sample(made, "--prompts", "prompts.txt")
    assert [one["prompt"] for one in found] == [RED, SHAPE]
    assert {one["seed"] for one in found} == {0}  # that of the configuration
    other = ["--model.guidance.weight", "0", "--model.init_args.seed=3"]
    assert sample(made, "--prompts", "prompts.txt", *other, out="other")[0]["seed"] == 3
    assert not np.array_equal(pixels("out/00000.png"), pixels("other/00000.png"))


def test_weights_may_be_those_of_the_configuration_and_the_folder_the_next_free_one(made):
    config, folder = made
    weights = {"model": {"init_args": {"weights": str(folder / "x.safetensors")}}}
    Path("weights.yaml").write_text(yaml.safe_dump(weights))
    arguments = [*config, "-c", "weights.yaml", "--prompt", RED]
    for run in ("run-0", "run-1"):
        assert main(arguments) == 0
        assert Path("samples", run, "grid.png").exists()


def test_a_model_that_ignores_text_needs_no_prompt(tmp_path):
    config = configuration(tmp_path / "free.yaml", SMALL | FREE)
    Path("overlay.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"learning_rate_scales": {}}}})
    )
    config += ["-c", "overlay.yaml"]
    trained(config).export(tmp_path / "free.safetensors")
    assert main([*config, "--weights", "free.safetensors", "--num", "3", "--out", "out"]) == 0
    assert len(json.loads(Path("out/prompts.json").read_text())) == 3
    assert not np.array_equal(pixels("out/00000.png"), pixels("out/00001.png"))


def test_an_interrupt_leaves_whole_files_only(made, monkeypatch):
    saves = []

    def interrupted(self, target, **options):
        Path(target).write_bytes(b"half of a picture")
        raise KeyboardInterrupt

    def save(picture, path):
        saves.append(path)
        if len(saves) == 4:
            monkeypatch.setattr(Image.Image, "save", interrupted)
        save_png(picture, path)

    monkeypatch.setattr(pictures, "save_png", save)
    with pytest.raises(
        KeyboardInterrupt, match=r"interrupted after 3 of 6 images; they are in out"
    ):
        sample(made, "--prompt", RED, "--num", "6", "--batch_size", "2")
    left = json.loads(Path("out/prompts.json").read_text())
    assert [one["file"] for one in left] == ["00000.png", "00001.png", "00002.png"]
    assert {path.name for path in Path("out").iterdir()} == {"prompts.json", "sampling.json"} | {
        one["file"] for one in left
    }
    assert all(pixels(Path("out", one["file"])).shape == (8, 8, 3) for one in left)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--prompt", RED], r"needs trained weights: give --ckpt_path FILE\.ckpt or --weights"),
        (["--prompt", RED, "--weights", "none.safetensors"],
         r"--weights: none\.safetensors: no such file"),
        (["--prompt", RED, "--ckpt_path", "none.ckpt"], r"--ckpt_path: none\.ckpt: no such file"),
        (["--prompt", RED, "--ckpt_path", "CKPT", "--weights", "WEIGHTS"], r"not allowed with"),
        (["--prompt", RED, "--ckpt_path", "WEIGHTS"], r"x\.safetensors: not a weights-only"),
        (["--weights", "WEIGHTS"], r"--prompt or --prompts must be given"),
        (["--weights", "WEIGHTS", "--prompts", "none.txt"], r"none\.txt: cannot be read"),
        (["--weights", "WEIGHTS", "--prompts", "empty.txt"], r"must hold at least one prompt"),
        (["--weights", "WEIGHTS", "--prompts", "latin.txt"], r"latin\.txt: must be UTF-8 text"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--num", "0"], r"--num must be at least 1"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--batch_size", "-1"],
         r"--batch_size must be at least 1, got -1"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--out", "full"],
         r"--out must be a new or empty folder, got full"),
        (["--promt", RED, "--weights", "WEIGHTS"],
         r"unknown argument '--promt'; did you mean '--prompt'\?"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--model.guidance.wait", "1"], r"wait"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--model.guidance.weight"], r"needs a value"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--model", "{a"], r"--model: not valid YAML"),
        (["--prompt", RED, "--weights", "WEIGHTS", "--out", "full/a.txt/out"],
         r"--out: full/a\.txt/out: cannot be written"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_write_nothing(made, args, expected):
    config, folder = made
    Path("full").mkdir()
    for name, content in (("full/a.txt", b"a"), ("empty.txt", b"\n"), ("latin.txt", b"\xe9")):
        Path(name).write_bytes(content)
    before = sorted(Path.cwd().rglob("*"))
    named = {"WEIGHTS": str(folder / "x.safetensors"), "CKPT": str(folder / "x.ckpt")}
    with pytest.raises(UserError, match=expected) as refused:
        main([*config, *(named.get(word, word) for word in args)])
    assert "\n" not in str(refused.value)
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize("option", ["--weights", "weights"])
def test_weights_are_taken_whole_what_no_stage_has_trained_included(option, tmp_path):
    skips = {"class_path": "pretzel.interleave.RandomSkip"}
    stacked = {"class_path": "pretzel.interleave.Stacked", "init_args": {"skips": skips}}
    config = configuration(tmp_path / "skips.yaml", SMALL | {"interleaving": stacked})
    stage = {"trains": ["shallow", "deep"], "learning_rate_scales": {}}
    Path("stage.yaml").write_text(yaml.safe_dump({"model": {"init_args": stage}}))
    module = trained([*config, "-c", "stage.yaml"])
    module._as_configured = {name for name in module.state_dict() if "_skip" in name}
    assert module._as_configured
    module.requires_grad_(False).export(tmp_path / "x.safetensors")
    files = [*config[1::2], "stage.yaml"]
    weights = tmp_path / "x.safetensors"
    if option == "--weights":
        found = trained_module(weights, files)
    else:
        overrides = [("model.init_args.weights", str(weights))]
        found = trained_module(None, files, overrides=overrides)
    state = module.state_dict()
    for name, value in found.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_of_another_configuration_are_refused(made, tmp_path):
    config, folder = made
    other = configuration(
        tmp_path / "deeper.yaml",
        SMALL | {"split": {**SMALL["split"], "init_args": {"shallow": [1], "deep": 2}}},
    )
    for option, file in (("--weights", "x.safetensors"), ("--ckpt_path", "x.ckpt")):
        with pytest.raises(UserError, match=rf"{file}.* must be of the configured architecture"):
            main([*other, option, str(folder / file), "--prompt", RED])
    saved = torch.load(folder / "x.ckpt", weights_only=True)
    saved["frozen"]["vlm"] = "other:1"
    torch.save(saved, "other.ckpt")
    with pytest.raises(UserError, match=r"other\.ckpt: .* with the vlm it was trained with, other"):
        main([*config, "--ckpt_path", "other.ckpt", "--prompt", RED])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said(made):
    config, folder = made
    weights = ["--weights", str(folder / "x.safetensors"), "--prompt", RED]
    with pytest.raises(UserError, match=r"--device cuda: this machine .* has no CUDA"):
        main([*config, *weights, "--device", "cuda"])


def test_too_little_memory_is_said(made, monkeypatch):
    def generate(self, prompts, keys, **how):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(PretzelModule, "generate", generate)
    with pytest.raises(UserError, match=r"--batch_size must be one that fits .*, got 64"):
        sample(made, "--prompt", RED)


def test_help_is_complete_and_needs_no_torch():
    code = (
        "import sys; from pretzel.cli.sample.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("example:", "--ckpt_path", "--weights", "--prompt ", "--prompts", "--num",
                 "--seed", "--batch_size", "--device", "--out", "prompts.json"):  # fmt: skip
        assert word in done.stdout, word


def test_a_sheet_shortens_labels_and_enlarges_by_whole_pixels():
    shown = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue", "green")]
    picture = sheet(shown, ["a", "b " * 100, ""], columns=2)
    assert picture.size == (2 * (120 + 4), 2 * (60 + 18))
    assert picture.getpixel((2, 2)) == (255, 0, 0)
    assert picture.getpixel((126, 2)) == (0, 0, 255)
    assert picture.getpixel((121 + 1, 2)) == (255, 255, 255)
