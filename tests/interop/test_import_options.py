"""The command line of `pretzel import`: its mistakes are told in one sentence."""

import subprocess
import sys

import pytest
from importing import SMALL, checkpoint, four_channels, refused

pytestmark = pytest.mark.usefixtures("elsewhere")


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
        ("starflow", "S8", [*SMALL, "--softplus", "--exp"], ["--exp", "not allowed"]),
        ("starflow", "S8", [*SMALL, "--guidance", "2"], ["--guidance", "text"]),
    ],
)
def test_a_wrong_file_or_option_is_refused(tmp_path, capsys, family, name, options, words):
    message = refused(capsys, family, checkpoint(tmp_path, name), *options)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 8}, "4 channels of the checkpoint's positions, got 8"),
        ({"channel": 4}, "channel"),
    ],
)
def test_a_latent_space_that_does_not_go_with_it_is_refused(tmp_path, capsys, arguments, words):
    options = ["--head_dim", "24", *four_channels(tmp_path, **arguments)]
    assert words in refused(capsys, "starflow", checkpoint(tmp_path, "S2"), *options)


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
