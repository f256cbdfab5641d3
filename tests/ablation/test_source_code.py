"""The code behind a class: what changes its hash, and what does not."""

import importlib
import sys
import textwrap

import pytest

from pretzel.ablation.identity import source_code
from pretzel.ablation.identity.source_code import code_behind, own_code

PACKAGE = {
    "__init__.py": '"""Passes on."""\nfrom plug.block import Block\nfrom plug.other import Other\n',
    "block.py": "from plug import helper\n\n\nclass Block:\n    size = helper.size\n",
    "helper.py": '"""Helps."""\nfrom .deep.inside import size\n',
    "deep/__init__.py": "print  # does something: runs before what is inside\n",
    "deep/inside.py": "import numpy\nimport json\n\nsize = numpy.pi\n",
    "other.py": "class Other:\n    pass\n",
}


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """A user's package; returns how to change one of its files."""

    def write(name, text):
        path = tmp_path / "plug" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for cached in vars(source_code).values():  # as in a new process
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()

    for name, text in PACKAGE.items():
        write(name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for module in [name for name in sys.modules if name.partition(".")[0] == "plug"]:
        del sys.modules[module]
    for cached in vars(source_code).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


def test_imports_are_followed_as_far_as_the_code_is_ones_own(plug):
    code = code_behind(["plug.Block"])
    assert set(code.modules) == {"plug.block", "plug.helper", "plug.deep", "plug.deep.inside"}
    assert set(code.versions) == {"numpy"}
    assert code_behind(["plug.block.Block"]) == code


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("block.py", "# a comment\n" + PACKAGE["block.py"]),
        ("helper.py", PACKAGE["helper.py"].replace("Helps.", "Helps differently.")),
        ("block.py", PACKAGE["block.py"] + '    """What size is."""\n'),
        ("other.py", "class Other:\n    def new(self): ...\n"),
        ("new_block.py", "class NewBlock: ...\n"),
        ("__init__.py", PACKAGE["__init__.py"] + "from plug.other import Other as Again\n"),
    ],
)
def test_what_changes_nothing(plug, name, text):
    before = code_behind(["plug.Block"])
    plug(name, text)
    assert code_behind(["plug.Block"]) == before


def test_a_class_of_a_user_counts_with_its_code(plug):
    block = importlib.import_module("plug").Block
    before = own_code(block)
    plug("other.py", "class Other:\n    def new(self): ...\n")
    assert own_code(block) == before
    plug("helper.py", "size = 3\n")
    assert own_code(block) not in (before, "")
    assert own_code(source_code.SourceCode) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("block.py", PACKAGE["block.py"].replace("helper.size", "helper.size + 1")),
        ("deep/inside.py", PACKAGE["deep/inside.py"] + "size = 3\n"),
        ("deep/__init__.py", "import json\n"),
        ("helper.py", "size = 3\n"),
    ],
)
def test_what_changes_the_hash(plug, name, text):
    before = code_behind(["plug.Block"])
    plug(name, text)
    assert code_behind(["plug.Block"]) != before


def test_an_import_inside_a_function_counts(plug):
    late = textwrap.dedent(
        """
        class Block:
            def size(self):
                from plug.other import Other
                return Other
        """
    )
    plug("block.py", late)
    assert "plug.other" in code_behind(["plug.Block"]).modules


def test_what_is_no_code_is_passed_over():
    assert code_behind(["runs/vlm.ckpt", "0.5", "no.such.module", "a b"]).modules == {}


def test_our_own_parts_are_told_apart():
    stacked = code_behind(["pretzel.interleave.Stacked"]).modules
    assert "pretzel.interleave.stacked" in stacked
    assert "pretzel.interleave.tiled" not in stacked
    assert set(code_behind(["torch.optim.AdamW"]).versions) == {"torch"}
