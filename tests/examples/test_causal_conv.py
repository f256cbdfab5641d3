"""The plug-in under examples/: its laws, and its grid through the real command line parser."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretzel_causal_conv"


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The package in reach, as installing it would do."""
    sys.path.insert(0, str(EXAMPLE / "src"))
    yield
    sys.path.remove(str(EXAMPLE / "src"))


def test_its_own_tests_pass(request):
    spec = importlib.util.spec_from_file_location("plugin_laws", EXAMPLE / "tests" / "test_laws.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    tests.test_laws((3, 3), 2)
    tests.test_laws_with_other_parts()
    tests.test_kernels_of_one_tap_are_refused()


def test_its_grid_plans_and_its_arm_builds_and_trains():
    from pretzel.ablation.gridfile.reading import load
    from pretzel.ablation.planning.grid_to_plan import plan_grid
    from pretzel.testing.laws.models import latents
    from pretzel.testing.tiny_model import documents

    plan = plan_grid(load(EXAMPLE / "convolution_or_attention.yaml"))
    assert [cell.name for cell in plan.compared] == [
        "attention/seed0", "convolution/seed0", "attention/seed1", "convolution/seed1",
    ]  # fmt: skip
    cell = next(cell for cell in plan.compared if cell.arm == "convolution")
    shallow = cell.config["model"]["init_args"]["pretzel"]["init_args"]["shallow"]
    assert shallow["class_path"] == "pretzel_causal_conv.CausalConvBlock"
    # the whole node was replaced: nothing of the attention block's arguments is left
    assert set(shallow["init_args"]) == {"transform", "width", "kernel_size"}

    model = model_of(cell.config).pretzel
    blocks = [type(block).__name__ for block in model.shallow.blocks]
    assert blocks == ["CausalConvBlock", "CausalConvBlock"]
    loss = -model.score(documents(), latents(model, 4).float()).log_prob.sum()
    gradients = torch.autograd.grad(loss, list(model.shallow.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def model_of(config):
    """Instantiate the model of a resolved configuration with the parser of the command line."""
    from pretzel.runs.cli import ParseOnlyCLI
    from pretzel.runs.config.overlay import Config

    cli = ParseOnlyCLI()
    parsed = cli.parse("fit", Config(values=config))
    cli.config, cli.subcommand = parsed, "fit"  # where LightningCLI looks for hyperparameters
    return cli.parser.instantiate_classes(parsed).fit.model
