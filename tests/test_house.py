"""The rules of the house, checked on the import statements and the files themselves."""

import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pretzel", "datamodules", "callbacks")


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def test_the_model_knows_neither_data_nor_callbacks():
    for path in python_files("pretzel"):
        above = imported_roots(path) & {"datamodules", "callbacks", "benchmarks", "tests"}
        assert not above, path


def test_data_and_callbacks_do_not_know_each_other():
    for path in python_files("datamodules"):
        assert "callbacks" not in imported_roots(path), path
    for path in python_files("callbacks"):
        # but for the judge of a drawn world, which draws what it looks for
        if path.parent.name != "scenes":
            assert "datamodules" not in imported_roots(path), path


@cache
def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("call", ["pickle.load", "torch.load", "eval", "exec"])
def test_nothing_is_unpickled_or_evaluated(call: str):
    for path in python_files(*PACKAGES):
        for node in calls(path):
            if _name(node) == call:
                safe = any(
                    keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True"
                    for keyword in node.keywords
                )
                assert safe, f"{path}: {call}"


def _name(call: ast.Call) -> str:
    """Return the dotted name of what is called; it begins with a dot where a call is called on."""
    names, at = [], call.func
    while isinstance(at, ast.Attribute):
        names, at = [at.attr, *names], at.value
    return ".".join([at.id if isinstance(at, ast.Name) else "", *names])


def test_no_model_or_tokenizer_comes_with_code_of_its_own():
    asks = {"from_pretrained", "from_config", "pipeline", "load_dataset"}
    for path in python_files(*PACKAGES):
        for node in calls(path):
            if _name(node).rpartition(".")[2] in asks:
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("trust_remote_code") == "False", f"{path}:{node.lineno}"


def test_docstrings_say_what_a_thing_is_in_plain_order():
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for path in python_files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            assert not (text or "").startswith("What "), f"{path}: {text}"


def test_no_file_is_larger_than_four_megabytes():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    sizes = {name: (ROOT / name).stat().st_size for name in listed if (ROOT / name).exists()}
    assert {name: size for name, size in sizes.items() if size > 4_000_000} == {}
    data = sum(size for name, size in sizes.items() if name.startswith("datamodules/data/"))
    assert data < 12_000_000
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    shipped = weights - sum(
        size for name, size in sizes.items() if name.startswith("tests/golden/")
    )
    assert shipped < 12_000_000
