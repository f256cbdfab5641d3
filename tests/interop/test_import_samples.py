"""From public weights to samples: what is imported draws what the published code draws."""

import pytest
import torch
from golden import Case
from importing import (
    SMALL,
    checkpoint,
    close,
    four_channels,
    golden,
    imported,
    latents,
    module_of,
    written,
)

import pretzel
from pretzel.errors import UserError
from pretzel.generation.latents import sample_latents
from pretzel.interop.starflow import StarflowOptions, read_starflow
from pretzel.latent.pixels import patchify, unpatchify
from pretzel.sampling.samplers import Sequential
from pretzel.sampling.stack import invert_stack
from pretzel.training.loading import trained_module

pytestmark = pytest.mark.usefixtures("elsewhere")


def case_of(name, dtype=torch.float32):
    return Case(golden(name), dtype)


def test_tarflow_draws_the_same_images(tmp_path):
    module = module_of(imported(checkpoint(tmp_path, "T4"), "tarflow", *SMALL))
    case = case_of("T4")
    noise = case.tensors["in.noise"]
    made = sample_latents(module.pretzel, ["any"] * 3, noise, module.guidance, module.sampler)
    close(module.pretzel.latent.decode(made.x), case.tensors["out.rev.x"])


def test_tarflow_is_told_classes_by_name_and_guided_from_the_command_line(tmp_path):
    names = ["cat", "dog", "eel", "fox", "gnu"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = [*SMALL, "--class_names", str(tmp_path / "names.txt")]
    folder = imported(checkpoint(tmp_path, "T5"), "tarflow", *options)
    overrides = [("model.guidance.weight", 1.5)]
    module = trained_module(None, folder / "config.yaml", overrides=overrides)
    case = case_of("T5")
    noise, prompts = case.tensors["in.noise"], [names[y] for y in case.tensors["in.y"]]
    for weight, expected in ((1.5, "out.rev_g.x"), (0.0, "out.rev.x")):
        assert weight in (0.0, module.guidance.weight)
        module.guidance.weight = weight
        made = sample_latents(module.pretzel, prompts, noise, module.guidance, module.sampler)
        close(module.pretzel.latent.decode(made.x), case.tensors[expected])


def test_an_import_is_loaded_from_python(tmp_path):
    names = ["cat", "dog", "eel", "fox", "gnu"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    options = [*SMALL, "--class_names", str(tmp_path / "names.txt")]
    folder = imported(checkpoint(tmp_path, "T5"), "tarflow", *options)
    model = pretzel.load(folder)
    ours = trained_module(None, folder / "config.yaml").state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in model.module.state_dict().items())
    pictures = model.generate(names[:2], seed=0, guidance=1.0)
    assert len(pictures) == 2
    assert model.log_prob(pictures, names[:2]).isfinite().all()
    assert model.log_prob(pictures).isfinite().all()
    with pytest.raises(UserError, match="text and images"):
        model.ask(pictures[0], "what is it?")


def test_the_learned_prior_is_the_scale_of_the_last_block(tmp_path):
    module = module_of(imported(checkpoint(tmp_path, "T4v"), "tarflow", *SMALL))
    case = case_of("T4v")
    made = invert_stack(module.pretzel.stack, case.tensors["in.noise"], Sequential())
    close(module.pretzel.latent.decode(made.x), case.tensors["out.rev.x"])


def test_starflow_of_pixels_draws_the_same_images(tmp_path):
    module = module_of(imported(checkpoint(tmp_path, "S8"), "starflow", *SMALL))
    case = case_of("S8")
    made = invert_stack(module.pretzel.stack, latents(case, "in.noise"), module.sampler)
    close(module.pretzel.latent.decode(made.x), case.tensors["out.rev.x"])


@pytest.mark.parametrize("grid", [(8, 8), (6, 12)])
def test_starflow_goes_with_a_latent_space_on_its_own_grid(tmp_path, grid):
    options = ["--head_dim", "24", *four_channels(tmp_path, grid=list(grid))]
    module = module_of(imported(checkpoint(tmp_path, "S2"), "starflow", *options))
    case = case_of("S2")
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
    case = case_of("S6", torch.float64)
    options = StarflowOptions(head_dim=24, seq_order="R2L", patch_size=2, hf_style_rope=True)
    stack = read_starflow(case.parameters(), options).stack()
    z, text = patchify(case.input("in.noise"), 2), case.input("in.y")
    x = invert_stack(stack, z, Sequential(), context=text).x
    actual = unpatchify(x, (4, 4), 2)
    torch.testing.assert_close(actual, case.tensors["out64.rev.x"], rtol=0, atol=1e-10)


def test_blocks_without_layers_are_left_out_and_the_scan_orders_stay(tmp_path):
    folder = imported(checkpoint(tmp_path, "S7"), "starflow", "--head_dim", "24")
    arguments = written(folder)["model"]["init_args"]["pretzel"]["init_args"]
    assert arguments["split"]["init_args"] == {"shallow": [1], "deep": 2}
    orders = [node["class_path"].rpartition(".")[2] for node in arguments["permutations"]]
    assert orders == ["Raster", "Flip"]  # blocks 1 and 2 of L2R
    stack, case = module_of(folder).pretzel.stack, case_of("S7")
    z, text = latents(case, "in.noise"), case.tensors["in.y"]
    x = invert_stack(stack, z, Sequential(), context=text).x
    close(unpatchify(x, (5, 5), 1), case.tensors["out.rev.x"])
