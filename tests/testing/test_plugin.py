"""``pytest --laws``: one test for each law, state and case; failures say what the law says."""

import json
import subprocess
import sys
from itertools import count

import jaxtyping
import pytest
import torch

import pretzel.testing.plugin
from pretzel.flow import AffineSoftplus, Flip
from pretzel.testing import laws_of, run_laws
from pretzel.testing.deviation import within
from pretzel.testing.gradients import check_gradients

pytest_plugins = ["pytester"]

LAB = """
from pretzel.flow import AffineSoftplus, Flip

class WrongSign(AffineSoftplus):
    def forward(self, x, params):
        z, logdet = super().forward(x, params)
        return z, -logdet

class Backwards(Flip):
    pass
"""
NUMBERS = count()
PERMUTATION, TRANSFORM = (len(laws_of(part)) for part in (Flip(), AffineSoftplus()))


@pytest.fixture(scope="module")
def everything_is_imported():
    """Import modules first that a run inside this process would import and then forget."""
    run_laws(AffineSoftplus)
    run_laws(Flip)


@pytest.fixture
def lab(everything_is_imported, pytester):
    """A package of two classes; of its own name, as classes of earlier runs may not be gone."""
    pytester.syspathinsert()
    package = pytester.mkpydir(f"plugin_lab_{next(NUMBERS)}")
    (package / "parts.py").write_text(LAB)
    (package / "__main__.py").write_text("raise SystemExit('imported')")
    return package


def cases(lab, returned="{WrongSign: [WrongSign], Backwards: [Backwards, lambda: Backwards()]}"):
    return f"""
def pytest_law_cases():
    from pretzel.flow import AffineSoftplus
    from {lab.name}.parts import Backwards, WrongSign
    return {returned}
"""


def laws(pytester, *args):
    # Loaded by its entry point as well, unless an older install is in use.
    return pytester.runpytest("-p", "pytest_pretzel", "-p", "no:cacheprovider", *args)


def test_without_packages_nothing_is_collected(pytester, lab):
    pytester.makeconftest(cases(lab))
    pytester.makepyfile("def test_own(): pass")
    laws(pytester).assert_outcomes(passed=1)


def test_passing_and_failing_classes(pytester, lab):
    pytester.makeconftest(cases(lab))
    pytester.makepyfile("def test_own(): pass")
    result = laws(pytester, "--laws", lab.name, "-v")
    result.assert_outcomes(passed=1 + 2 * PERMUTATION + TRANSFORM - 1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"{lab.name}.parts.Backwards::permutations.*(initial, case 0) PASSED*",
            f"{lab.name}.parts.Backwards::permutations.*(initial, case 1) PASSED*",
        ]
    )
    result.stdout.fnmatch_lines_random(
        [
            "breaks transforms.logdet_is_that_of_the_derivative (at initialisation):",
            "  The reported log-determinant is not log dz/dx, or the map is not increasing.",
            "  logdet = log dz/dx: worst error 2 at [[]*",
            f"FAILED {lab.name}.parts.WrongSign::transforms.logdet_is_that_of_the_derivative*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*raise LawBroken*")


def test_failures_are_run_again(pytester, lab):
    pytester.makeconftest(cases(lab, "{WrongSign: [AffineSoftplus], Backwards: [lambda: None]}"))
    cache = pytester.mkdir(".pytest_cache") / "v" / "cache"
    cache.mkdir(parents=True)
    law = "transforms.float32_is_close (initial, case)"
    failed = {f"{lab.name}.parts.WrongSign::{law}": True}
    (cache / "lastfailed").write_text(json.dumps(failed))
    result = pytester.runpytest("-p", "pytest_pretzel", "--laws", lab.name, "--lf")
    result.assert_outcomes(passed=1, deselected=TRANSFORM)


def test_a_class_without_a_case_fails_and_says_how_to_add_one(pytester, lab):
    result = laws(pytester, "--laws", lab.name)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            f"{lab.name}.parts.WrongSign has no law case: add one to conftest.py",
            f"*from {lab.name}.parts import WrongSign",
            "*return {WrongSign: [[]lambda: WrongSign(...)[]]}",
        ]
    )


@pytest.mark.parametrize(("flag", "expression"), [("-k", "Backwards or WrongSign"), ("-m", "laws")])
def test_the_ini_file_names_packages_and_tests_are_chosen_as_others(
    pytester, lab, flag, expression
):
    pytester.makeconftest(cases(lab))
    pytester.makeini(f"[pytest]\nlaws = {lab.name}\naddopts = --strict-markers")
    pytester.makepyfile("def test_own(): pass")
    passed = 2 * PERMUTATION + TRANSFORM - 1
    laws(pytester, flag, expression).assert_outcomes(passed=passed, failed=1, deselected=1)


def test_a_package_that_cannot_be_imported_is_named(pytester, lab):
    (lab / "wrong.py").write_text("import not_there_at_all")
    result = laws(pytester, "--laws", lab.name, "--laws", "no_such_package")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines_random(
        [
            f"--laws {lab.name}: module '{lab.name}.wrong' cannot be imported: it needs module *",
            "--laws no_such_package: no module 'no_such_package'*",
        ]
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("{Backwards: Backwards}", "*pytest_law_cases must return {class: [[]function, ...[]]}*"),
        ("{Backwards: [lambda: 1 / 0]}", "*Backwards, case: ZeroDivisionError: *conftest.py:4)"),
        ("{Backwards: [object]}", "*laws exist for FlowBlock*"),
    ],
)
def test_cases_that_are_none(pytester, lab, answer, sentence):
    pytester.makeconftest(cases(lab, answer))
    result = laws(pytester, "--laws", lab.name)
    assert result.ret == pytest.ExitCode.TESTS_FAILED or result.parseoutcomes()["errors"]
    result.stdout.fnmatch_lines([sentence])


def test_the_deepest_conftest_has_the_last_word(pytester, lab):
    pytester.makeconftest(cases(lab))
    pytester.mkdir("tests")
    (pytester.path / "tests" / "conftest.py").write_text(
        cases(lab, "{WrongSign: [AffineSoftplus]}")
    )
    (pytester.path / "tests" / "test_own.py").write_text("def test_own(): pass")
    laws(pytester, "--laws", lab.name).assert_outcomes(passed=1 + 2 * PERMUTATION + TRANSFORM)


def test_the_plugin_imports_nothing_of_pretzel():
    # jaxtyping's hook refuses packages that are imported before it, and plugins are.
    code = (
        "import sys, pytest_pretzel; sys.exit('pretzel' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_found_and_others_are_not():
    for name in pretzel.testing.__all__:
        assert getattr(pretzel.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'no_such_law'"):
        _ = pretzel.testing.no_such_law


def test_shapes_are_checked_beside_the_plugin():
    x = torch.zeros(2, 3, 4)
    with pytest.raises(jaxtyping.TypeCheckError):
        AffineSoftplus().location_and_scale(x.int())
    with pytest.raises(jaxtyping.TypeCheckError):
        check_gradients(torch.nn.Linear(2, 2), x, nonzero=True)
    with pytest.raises(jaxtyping.TypeCheckError):
        within(x, x, "no number", "x")


def test_one_letter_is_one_size_in_all_shapes_of_a_call():
    states, z = torch.zeros(2, 3, 4), torch.zeros(2, 3, 2)
    transform = AffineSoftplus()
    assert transform.inverse(z, states).shape == z.shape
    with pytest.raises(jaxtyping.TypeCheckError):
        transform.inverse(z[:1], states)  # which would broadcast
