"""`pretzel import`: what it writes continues as any run, what it refuses, what it says of keys."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from golden import Case
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.interop import written as writing
from pretzel.interop.published import read_checkpoint
from pretzel.interop.starflow import StarflowOptions, read_starflow
from pretzel.interop.tarflow import read_tarflow
from pretzel.latent.base import LatentSpace
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.sampling.configured import trained_model
from pretzel.sampling.images import sample_latents
from pretzel.sampling.samplers import Sequential
from pretzel.sampling.stack import invert_stack

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ["--head_dim", "16"]


class FourChannels(LatentSpace):
    """A latent space of the right size, for checkpoints that are not of pixels."""

    def __init__(self, grid: tuple[int, int] = (8, 8), channels: int = 4):
        super().__init__()
        self.grid, self.channels, self.noise, self.image_size = grid, channels, 0.3, grid[0]

    identity = "four"

    def encode(self, images):
        raise NotImplementedError

    def decode(self, latents):
        raise NotImplementedError


def tensors_of(name):
    loaded = load_file(GOLDEN / f"{name}.safetensors")
    return {k.removeprefix("param."): v for k, v in loaded.items() if k.startswith("param.")}


def checkpoint(folder, name, suffix=".safetensors", **changes):
    """Write the parameters of a golden file as a checkpoint; None takes a key away."""
    tensors = {k: v for k, v in (tensors_of(name) | changes).items() if v is not None}
    path = folder / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        wrapped = {f"module.{key}": value for key, value in tensors.items()}
        torch.save({"model": wrapped, "epoch": 3}, path)
    return path


def imported(path, family, *options, out="made"):
    folder = path.parent / out
    assert main(["import", family, str(path), "--out", str(folder), *options]) == 0
    return folder


def model_of(folder, *overrides):
    return trained_model([str(folder / "config.yaml")], overrides)


def latents(case, key):
    """Return an image of a golden file as our patches."""
    return patchify(case.tensors[key], case.arguments["patch_size"])


def close(found, expected):
    error = float((found.detach() - expected).abs().max())
    assert error <= 1e-5 * float(expected.abs().max()), error


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Nothing may depend on the current folder."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


# What is written draws what the published code draws


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_imported_tarflow_draws_the_same_images(tmp_path, suffix):
    folder = imported(checkpoint(tmp_path, "T4", suffix), "tarflow", *SMALL)
    module, case = model_of(folder), Case(GOLDEN / "T4.safetensors", torch.float32)
    noise = case.tensors["in.noise"]
    made = sample_latents(module.pretzel, ["any"] * 3, noise, module.guidance, module.sampler)
    close(module.pretzel.latent.decode(made.x), case.tensors["out.rev.x"])


def test_an_imported_tarflow_is_told_classes_by_name(tmp_path):
    names = ["cat", "dog", "eel", "fox", "gnu"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = [*SMALL, "--class_names", str(tmp_path / "names.txt")]
    folder = imported(checkpoint(tmp_path, "T5"), "tarflow", *options)
    case = Case(GOLDEN / "T5.safetensors", torch.float32)
    noise, prompts = case.tensors["in.noise"], [names[y] for y in case.tensors["in.y"]]
    for weight, expected in ((0.0, "out.rev.x"), (1.5, "out.rev_g.x")):
        module = model_of(folder, f"--model.guidance.weight={weight}")
        made = sample_latents(module.pretzel, prompts, noise, module.guidance, module.sampler)
        close(module.pretzel.latent.decode(made.x), case.tensors[expected])


def test_the_learned_prior_is_the_scale_of_the_last_block(tmp_path):
    folder = imported(checkpoint(tmp_path, "T4v"), "tarflow", *SMALL)
    module, case = model_of(folder), Case(GOLDEN / "T4v.safetensors", torch.float32)
    made = invert_stack(module.pretzel.stack, case.tensors["in.noise"], Sequential())
    close(module.pretzel.latent.decode(made.x), case.tensors["out.rev.x"])


def test_an_imported_starflow_of_pixels_draws_the_same_images(tmp_path):
    folder = imported(checkpoint(tmp_path, "S8"), "starflow", *SMALL)
    module, case = model_of(folder), Case(GOLDEN / "S8.safetensors", torch.float32)
    made = invert_stack(module.pretzel.stack, latents(case, "in.noise"), module.sampler)
    close(module.pretzel.latent.decode(made.x), case.tensors["out.rev.x"])


@pytest.mark.parametrize("grid", [(8, 8), (6, 12)])
def test_an_imported_starflow_goes_with_a_latent_space_on_its_own_grid(tmp_path, grid):
    node = {"class_path": f"{__name__}.FourChannels", "init_args": {"grid": list(grid)}}
    (tmp_path / "latent.yaml").write_text(yaml.safe_dump(node))
    options = ["--head_dim", "24", "--latent", str(tmp_path / "latent.yaml")]
    folder = imported(checkpoint(tmp_path, "S2"), "starflow", *options)
    module, case = model_of(folder), Case(GOLDEN / "S2.safetensors", torch.float32)
    rect = "_rect" if grid != (8, 8) else ""
    text = case.tensors["in.y_cfg"]
    assert module.pretzel.text_condition.length == text.shape[1]
    assert module.guidance.weight == 2.5
    module.guidance.weight = 2.0
    made = invert_stack(
        module.pretzel.stack,
        latents(case, f"in.noise{rect}"),
        module.sampler,
        context=text[:2],
        null_context=text[2:],
        guidance=module.guidance,
    )
    expected = case.tensors["out.rev_rect.seq3" if rect else "out.rev_cfg.x"]
    close(unpatchify(made.x, grid, 1), expected)


def test_patches_of_starflow_come_in_our_order():
    case = Case(GOLDEN / "S6.safetensors", torch.float64)
    options = StarflowOptions(head_dim=24, seq_order="R2L", patch_size=2, hf_style_rope=True)
    stack = read_starflow(case.parameters(), options).stack()
    z, text = patchify(case.input("in.noise"), 2), case.input("in.y")
    x = invert_stack(stack, z, Sequential(), context=text).x
    found = unpatchify(x, (4, 4), 2)
    torch.testing.assert_close(found, case.tensors["out64.rev.x"], rtol=0, atol=1e-10)


def test_blocks_without_layers_are_left_out_and_the_scan_orders_stay(tmp_path):
    folder = imported(checkpoint(tmp_path, "S7"), "starflow", "--head_dim", "24")
    model = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["pretzel"]
    arguments = model["init_args"]
    assert arguments["split"]["init_args"] == {"shallow": [1], "deep": 2}
    orders = [node["class_path"].rpartition(".")[2] for node in arguments["permutations"]]
    assert orders == ["Raster", "Flip"]  # blocks 1 and 2 of L2R
    stack = model_of(folder).pretzel.stack
    case = Case(GOLDEN / "S7.safetensors", torch.float32)
    z, text = latents(case, "in.noise"), case.tensors["in.y"]
    x = invert_stack(stack, z, Sequential(), context=text).x
    close(unpatchify(x, (5, 5), 1), case.tensors["out.rev.x"])


# ... and is a run as any other


def test_an_import_trains_tests_and_draws(tmp_path):
    folder = imported(checkpoint(tmp_path, "T4"), "tarflow", *SMALL)
    config = ["-c", str(folder / "config.yaml")]
    small = {
        "data": {"init_args": {"batch_size": 2, "eval_batch_size": 2, "num_val_samples": 2}},
        "trainer": {
            "max_steps": 1,
            "val_check_interval": 1,
            "limit_test_batches": 1,
            "default_root_dir": str(tmp_path / "run"),
            "accelerator": "cpu",
        },
    }
    callbacks = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["callbacks"]
    for callback in callbacks:
        if callback["class_path"].endswith("SampleGrid"):
            callback["init_args"].update(num_images=1, columns=1)
    small["trainer"]["callbacks"] = callbacks
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    config += ["-c", str(tmp_path / "small.yaml")]
    assert main(["fit", *config]) == 0
    assert main(["test", *config]) == 0
    assert main(["sample", *config, "--prompt", "x", "--out", str(tmp_path / "drawn")]) == 0
    assert (tmp_path / "drawn" / "00000.png").is_file()


def test_data_and_latent_sections_keep_their_paths(tmp_path):
    (tmp_path / "shards.tar").touch()
    shards = {"class_path": "datamodules.Shards", "init_args": {"train": "./shards.tar"}}
    data = {"class_path": "datamodules.WebDatasetDataModule", "init_args": {"source": shards}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    options = [*SMALL, "--data", str(tmp_path / "data.yaml")]
    folder = imported(checkpoint(tmp_path, "T4"), "tarflow", *options)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    found = written["data"]["init_args"]["source"]["init_args"]["train"]
    assert found == str(tmp_path / "shards.tar")


def test_the_weights_name_where_they_are_from(tmp_path):
    folder = imported(checkpoint(tmp_path, "T4"), "tarflow", *SMALL)
    with safe_open(folder / "weights.safetensors", "pt") as file:
        assert file.metadata() == {"source": "T4.safetensors", "family": "tarflow"}


# Every key is accounted for


def test_the_report_lists_what_is_used_and_what_is_not(tmp_path, capsys):
    imported(checkpoint(tmp_path, "S2"), "starflow", "--head_dim", "24", *latent(tmp_path))
    said = capsys.readouterr().out
    keys = tensors_of("S2")
    unused = {line.split()[1][:-1] for line in said.splitlines() if line.startswith("  unused")}
    used = {line.split()[1] for line in said.splitlines() if line.startswith("  used")}
    assert used | unused == set(keys)
    buffers = json.loads(metadata("S2"))["buffer_names"]
    assert unused == {*buffers, "feat_rope.freqs_sin"}
    assert "  used    blocks.0.sos_embed -> blocks.0.start.token" in said


def metadata(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return file.metadata()["golden"]


def latent(folder):
    node = {"class_path": f"{__name__}.FourChannels"}
    (folder / "latent.yaml").write_text(yaml.safe_dump(node))
    return ["--latent", str(folder / "latent.yaml")]


KEY = "blocks.1.attn_blocks.0.mlp.main.0.weight"
PLACES = "blocks.0.pos_embed"
NORM = "blocks.1.attn_blocks.0.attention.norm.bias"
REFUSED = {
    "missing where sizes are told": (
        {"blocks.0.pos_embed": None},
        ["blocks.0.pos_embed", "(16, 32)"],
    ),
    "missing where options are told": ({NORM: None}, [NORM, "(32,)", "found no key"]),
    "shape where sizes are told": (
        {"blocks.0.proj_in.weight": torch.zeros(32, 11)},
        ["blocks.0.proj_in.weight", "(32, 12)", "(32, 11)"],
    ),
    "missing": ({KEY: None}, [KEY, "(128, 32)", "found no key"]),
    "unknown": ({"extra.key": torch.zeros(2, 3)}, ["extra.key", "no such key", "(2, 3)"]),
    "shape": ({KEY: torch.zeros(5, 32)}, [KEY, "(128, 32)", "(5, 32)"]),
    "a scaled prior": ({"var": torch.full((16, 12), 2.0)}, ["var", "1 throughout", "2"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_sentence(tmp_path, capsys, case):
    changes, words = REFUSED[case]
    path = checkpoint(tmp_path, "T4", **changes)
    out = tmp_path / "made"
    assert main(["import", "tarflow", str(path), "--out", str(out), *SMALL]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in (*words, "T4.safetensors"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("family", "name", "options", "words"),
    [
        ("tarflow", "S8", SMALL, ["blocks.0.pos_embed"]),
        ("starflow", "T4", SMALL, ["blocks.0.pos_embed", "no such key"]),
        ("tarflow", "T4", [], ["head_dim", "32", "64"]),
        ("tarflow", "T4", [*SMALL, "--image_channels", "5"], ["--image_channels", "12"]),
        ("tarflow", "T4", [*SMALL, "--guidance", "2"], ["--guidance", "classes"]),
        ("tarflow", "T4", [*SMALL, "--classnames", "x"], ["--classnames"]),
        ("starflow", "S2", ["--head_dim", "24"], ["--latent FILE.yaml", "4 channels"]),
        ("starflow", "S8", [*SMALL, "--seq_order", "up"], ["--seq_order"]),
        ("starflow", "S8", [*SMALL, "--patch_size", "2"], ["patch_size", "3 channels"]),
    ],
)
def test_a_wrong_file_or_option_is_refused_in_one_sentence(
    tmp_path, capsys, family, name, options, words
):
    path = checkpoint(tmp_path, name)
    assert main(["import", family, str(path), "--out", str(tmp_path / "made"), *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in words), said
    assert not (tmp_path / "made").exists()


def test_a_latent_space_of_other_channels_is_refused(tmp_path, capsys):
    node = {"class_path": f"{__name__}.FourChannels", "init_args": {"channels": 8}}
    (tmp_path / "latent.yaml").write_text(yaml.safe_dump({"latent": node}))
    path = checkpoint(tmp_path, "S2")
    args = ["--head_dim", "24", "--latent", str(tmp_path / "latent.yaml")]
    assert main(["import", "starflow", str(path), "--out", str(tmp_path / "made"), *args]) == 2
    assert "4 channels of the checkpoint's positions, got 8" in capsys.readouterr().err
    node["init_args"] = {"channel": 4}
    (tmp_path / "latent.yaml").write_text(yaml.safe_dump(node))
    assert main(["import", "starflow", str(path), "--out", str(tmp_path / "made"), *args]) == 2
    assert "channel" in capsys.readouterr().err


# Files


class Opens:
    """Pickled by what it would run."""

    def __reduce__(self):
        return open, ("ran", "w")


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, capsys):
    path = tmp_path / "code.pt"
    torch.save({"model": tensors_of("T4"), "args": Opens()}, path)
    assert main(["import", "tarflow", str(path), "--out", str(tmp_path / "made"), *SMALL]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "never run" in said
    assert not (tmp_path / "elsewhere" / "ran").exists()


@pytest.mark.parametrize("name", ["noise.safetensors", "noise.pt", "none.pt"])
def test_what_is_no_checkpoint_is_refused(tmp_path, name):
    if name != "none.pt":
        (tmp_path / name).write_bytes(b"not a checkpoint at all")
    with pytest.raises(UserError, match=name):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("nest", [None, "model", "state_dict", "model_state_dict", "module"])
def test_weights_are_found_where_training_scripts_put_them(tmp_path, nest):
    state = {"module._orig_mod.a.b": torch.ones(2), "module._orig_mod.c": torch.zeros(())}
    torch.save(state if nest is None else {nest: state, "step": 7}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").keys() == {"a.b", "c"}


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save({"weights": [torch.ones(1)]}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="must hold a state dict"):
        read_checkpoint(tmp_path / "x.pt")


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    path = checkpoint(tmp_path, "T4")
    folder = imported(path, "tarflow", *SMALL)
    (folder / "config.yaml").write_text("mine")
    assert main(["import", "tarflow", str(path), "--out", str(folder), *SMALL]) == 2
    assert "--force" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == "mine"
    imported(path, "tarflow", *SMALL, "--force")
    assert model_of(folder).pretzel.latent.image_size == 8


def test_a_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "save_file", full)
    path = checkpoint(tmp_path, "T4")
    out = tmp_path / "deep" / "made"
    assert main(["import", "tarflow", str(path), "--out", str(out), *SMALL]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not out.parent.exists()


def test_help_needs_no_torch():
    code = (
        "import sys; from pretzel.__main__ import main\n"
        "codes = [main(['import', *name, '--help']) for name in ([], ['tarflow'], ['starflow'])]\n"
        "sys.exit('torch' in sys.modules or any(codes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--class_names" in done.stdout
    assert "--hf_style_rope" in done.stdout


# What the shapes tell


def test_a_block_that_is_missing_is_missed():
    tensors = {k: v for k, v in tensors_of("T4").items() if not k.startswith("blocks.2.")}
    with pytest.raises(UserError, match=r"blocks\.2\.proj_in\.weight"):
        read_tarflow(tensors, head_dim=16)


def test_learned_positions_do_not_go_with_another_grid():
    with pytest.raises(UserError, match=r"positions\.vectors"):
        read_tarflow(tensors_of("T4"), head_dim=16).stack((4, 5))


def test_a_denoiser_beside_the_flow_is_named_and_left():
    tensors = tensors_of("S8") | {"learnable_self_denoiser.proj_in.weight": torch.zeros(2, 3)}
    report = read_starflow(tensors, StarflowOptions(head_dim=16)).report
    assert "not read" in report.unused["learnable_self_denoiser.proj_in.weight"]
