"""``pretzel check``: a line for each law, the exit code, one sentence for a user's mistake."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pretzel.__main__ import main
from pretzel.cli.check import command as check
from pretzel.cli.check import trials
from pretzel.cli.check.class_arguments import configure
from pretzel.cli.check.trials import kind_of
from pretzel.flow.positions import StarflowPositions
from pretzel.model import Pretzel
from pretzel.runs.config.overlay import Config
from pretzel.runs.import_path import PACKAGES
from pretzel.testing import run_laws
from pretzel.testing.builtin_parts import shipped_cases, why_without_case
from pretzel.testing.suite import parts_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretzel_causal_conv"
LAB = '''
import torch
from pretzel.flow import AffineSoftplus, AffineTransform, FlowBlock, Flowed, Permutation
from pretzel.flow.norms import Norm
from pretzel.interleave import FlowInput, LinearAdapter, Stacked, ZeroSkip
from pretzel.training import WarmupCosine


class WrongSign(AffineSoftplus):
    def forward(self, x, params):
        z, logdet = super().forward(x, params)
        return z, -logdet


class Scale(FlowBlock):
    """A block with a learned scale for each channel, and no order or depth."""

    def __init__(self, channels: int, grid: tuple[int, ...], *, gain: float, even: bool = False):
        super().__init__()
        if even and channels % 2:
            raise ValueError(f"channels must be even, got {channels}")
        if gain < 0:
            raise ValueError(f"gain must not be negative, got {gain}")
        self.channels, self.grid = channels, grid
        self.log_scale = torch.nn.Parameter(torch.zeros(channels))
        self.gain = gain

    def forward(self, x):
        count = 1
        for size in self.grid:
            count *= size
        if x.shape[1:] != (count, self.channels):
            raise ValueError("shape")
        logdet = self.gain * self.log_scale.sum() * count
        return Flowed(z=x * (self.gain * self.log_scale).exp(), logdet=logdet.expand(len(x)))

    def inverse(self, z):
        return z * (-self.gain * self.log_scale).exp()


class PeakNorm(Norm):
    """Divides by the largest channel."""

    def __init__(self, width: int, *, floor: float):
        super().__init__()
        self.floor = floor

    def forward(self, x):
        return x / x.abs().amax(dim=-1, keepdim=True).clamp(min=self.floor)


class Deaf(Stacked):
    """Refuses every configuration."""

    def __init__(self, channels: int, hidden_size: int, width: int, *, levels: int):
        raise RuntimeError(f"no {levels} levels")


class HalfDone(AffineTransform):
    pass


class Thinned(ZeroSkip):
    pass


class Same(LinearAdapter):
    pass


class AsItIs(FlowInput):
    pass


class Fading(WarmupCosine):
    pass


class Crash(Permutation):
    def order(self, grid):
        return torch.zeros(3).reshape(7)


class Unrelated:
    pass


def function():
    pass
'''


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "check_lab.py").write_text(LAB)
    (tmp_path / "check_needs.py").write_text("import not_there_at_all\n")
    (tmp_path / "check_raises.py").write_text("\n1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("check_")]:
        del sys.modules[name]


def run(capsys, *args):
    code = main(["check", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_our_parts_pass_without_arguments(capsys):
    code, out, _ = run(capsys, "pretzel.flow.AffineSoftplus")
    assert code == 0
    assert "trial 2 of 2: min_scale=0.1" in out
    law = [line for line in out.splitlines() if "logdet_is_that_of_the_derivative" in line]
    assert [line.split()[:3:2] for line in law] == 2 * [["pass", "initial"]]
    assert "FAIL" not in out
    assert "obeys all" in out.splitlines()[-1]


def test_every_part_of_ours_is_of_a_kind_and_has_a_case():
    parts = [part for package in PACKAGES for part in parts_of(package)]
    assert len(parts) >= 50
    assert [p for p in parts if not (shipped_cases(p) or why_without_case(p))] == []
    assert [p for p in parts if shipped_cases(p) and why_without_case(p)] == []
    assert [check.find_class(f"{part.__module__}.{part.__name__}") for part in parts] == parts


def test_the_example_block_passes_in_several_sizes(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    monkeypatch.setattr(trials, "SIZES", trials.SIZES[1::4])  # a usual one and the largest
    code, out, err = run(capsys, "pretzel_causal_conv.CausalConvBlock", "--init-args.width", "8")
    assert code == 0, out + err
    assert out.startswith("transform: pretzel.flow.AffineSoftplus, as --init-args.transform is not")
    assert "grid=(3, 3), num_layers=2, permutation=Flip()" in out
    assert "autoregressive.cached_steps_equal_condition" in out


def test_a_broken_law_is_named_with_meaning_error_and_place(capsys, lab):
    code, out, _ = run(capsys, "check_lab.WrongSign")
    assert code == 1
    lines = out.splitlines()
    (number,) = (i for i, text in enumerate(lines) if "FAIL" in text)
    line, meaning = lines[number : number + 2]
    assert "transforms.logdet_is_that_of_the_derivative" in line
    assert "worst error 2 at [" in line
    assert meaning.strip().startswith("The reported log-determinant is not log dz/dx")
    assert "breaks transforms.logdet_is_that_of_the_derivative: " in out.splitlines()[-1]


def test_a_crash_is_a_broken_law_with_its_line(capsys, lab):
    code, out, _ = run(capsys, "check_lab.Crash")
    assert code == 1
    assert "RuntimeError: shape '[7]' is invalid" in out
    assert "check_lab.py:" in out


def test_a_contract_outside_of_the_library_brings_its_laws(capsys, lab):
    code, out, _ = run(capsys, "check_lab.Fading", "--init-args.warmup_steps=3")
    assert code == 0
    assert "pass  laws.factors_follow_from_the_step" in out


@pytest.mark.parametrize("name", ["Thinned", "Same", "AsItIs"])
def test_what_stands_between_the_streams_is_tried_by_itself_and_in_a_model(lab, name):
    alone, in_model = check._trials(check.find_class(f"check_lab.{name}"), [])
    assert (alone.label, in_model.label) == ("by itself", "in a tiny Pretzel")
    assert (alone.refused, in_model.refused) == ("", "")
    assert isinstance(in_model.factory(), Pretzel)


def test_sizes_that_a_block_has_not_or_refuses_are_left_out(capsys, lab):
    mapping = "{gain: 5e-1, even: true}"
    _, out, _ = run(capsys, "check_lab.Scale", "--init-args", mapping)
    assert out.count("pass  blocks.inverse_undoes_forward") == 3 * 4
    assert "trial 2 of 6: channels=2, grid=(3, 3)\n" in out
    assert "skipped: Scale cannot be built: ValueError: channels must be even, got 3" in out


def test_parts_of_a_block_are_tested_in_one(lab):
    module = importlib.import_module("check_lab")
    kind = kind_of(module.PeakNorm)
    config = Config(values={"floor": 1e-3})
    made = kind.trials(configure(module.PeakNorm, config, kind.parent_parameters, kind.defaults))
    assert [trial.refused for trial in made] == [""] * 6
    assert made[5].label.startswith("in an AFBlock, channels=1, grid=(5, 15)")
    run_laws(made[0].factory)
    kind = kind_of(StarflowPositions)
    config = Config(values={"side": 3, "of_text_model": False})
    make = configure(StarflowPositions, config, kind.parent_parameters, kind.defaults)
    refused = [trial.label for trial in kind.trials(make) if trial.refused]
    assert len(refused) == 1
    assert "grid=(2, 1, 3)" in refused[0]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["Flp"], "not the dotted path of a class, .* did you mean 'pretzel.flow.*Flip'"),
        (["no_such_package.Block"], "no module 'no_such_package': it is neither installed nor in"),
        (["check_needs.Block"], "'check_needs' cannot be imported: it needs module 'not_there_at"),
        (["check_raises.Block"], "'check_raises' cannot .*: ZeroDivision.*check_raises.py:2"),
        (["check_lab.WrongSgn"], "no class 'WrongSgn'; did you mean 'check_lab.WrongSign'"),
        (["check_lab.function"], "'check_lab.function' is not a class but a function"),
        (["pretzel.flow.permutations"], "is not a class but a module; it has .*Flip"),
        (["check_lab.Unrelated"], "no laws are known for check_lab.Unrelated: .* FlowBlock, Con"),
        (["callbacks.VQAAccuracy"], "no laws apply to .*VQAAccuracy: what a callback measures of"),
        (["check_lab.HalfDone"], "is abstract .location_and_scale.: check a subclass"),
        (["check_lab.Scale"], r"check_lab.Scale needs gain: for example --init-args.gain 0.5"),
        (["check_lab.Scale", "--init-args.gain", "loud"], "gain: expected float, got 'loud'"),
        (["check_lab.Scale", "--init-args.gan=1"], "no parameter 'gan' .*did you mean 'gain'"),
        (["check_lab.Scale", "--init-args.gain=-1"], "must not be negative, got -1.0 .*lab.py"),
        (["check_lab.Scale", "--init-args.channels=3"], "channels is not for YAML to give"),
        (["check_lab.Scale", "--init-args", "[1]"], "must be a mapping of names to values"),
        (["check_lab.Scale", "--init-args", "{a"], "--init-args: not valid YAML"),
        (["check_lab.Scale", "--init-args.gain"], "--init-args.gain needs a value"),
        (["check_lab.Scale", "--gain", "1"], "unknown option '--gain'"),
        (["check_lab.Deaf", "--init-args.levels=2"], "Deaf cannot be .*RuntimeError: no 2 levels"),
        (["check_lab.Scale", "check_lab.Crash"], "takes one class, got check_lab.Scale, check_l"),
        (["--init-args.gain=1"], "takes one class, got none"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(capsys, lab, args, sentence):
    code, out, err = run(capsys, *args)
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(sentence, err), err
    assert "pass" not in out


def test_parts_are_parsed_as_in_yaml(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    wrong = "{class_path: AffineSoftplus, init_args: {min_scal: 1}}"
    block = ("pretzel_causal_conv.CausalConvBlock", "--init-args.width=8")
    code, _, err = run(capsys, *block, f"--init-args.transform={wrong}")
    assert code == 2
    assert "AffineSoftplus has no parameter 'min_scal' (value 1); did you mean 'min_scale'?" in err


def test_help_is_instant():
    code = (
        "import sys; from pretzel.__main__ import main\n"
        "code = main(['check', '--help'])\n"
        "heavy = {'torch', 'lightning', 'transformers', 'jsonargparse'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pretzel check pretzel.flow.AFBlock" in done.stdout
