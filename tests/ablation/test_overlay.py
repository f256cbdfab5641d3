"""Folding: a changed class replaces its node, and nothing else changes."""

import copy
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.optim import Optimizer

from pretzel.errors import UserError
from pretzel.runs.config.overlay import Config, at, fold, override, read
from pretzel.runs.config.yaml_lines import Source

HERE = Path(__file__).parent
ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.3, "betas": [0.8, 0.9]}}
SGD = {"class_path": "torch.optim.SGD"}
TEST = Source(name="test")


def folded(*layers):
    return fold([Config(values=layer) for layer in layers]).values


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    import lab

    return lab


def test_jsonargparse_alone_keeps_stale_arguments():
    # the confounder that the fold exists for: without this fact the tests below prove nothing
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Optimizer, "optimizer", skip={"params"}, instantiate=False)
    import json

    args = [
        "--config",
        json.dumps({"optimizer": {**ADAMW, "init_args": {"lr": 0.3, "weight_decay": 0.7}}}),
    ]
    kept = parser.parse_args([*args, "--config", json.dumps({"optimizer": SGD})])
    assert kept.optimizer.class_path == "torch.optim.SGD"
    assert kept.optimizer.init_args.weight_decay == 0.7
    ours = folded(
        {"optimizer": {**ADAMW, "init_args": {"lr": 0.3, "weight_decay": 0.7}}}, {"optimizer": SGD}
    )
    clean = parser.parse_args(["--config", json.dumps(ours)])
    assert clean.optimizer.init_args.weight_decay == 0
    assert clean.optimizer.init_args.lr == torch.optim.SGD([torch.zeros(1)]).defaults["lr"]


def test_changed_class_replaces_the_node():
    base = {"optimizer": ADAMW, "trainer": {"max_steps": 3}}
    assert folded(base, {"optimizer": SGD}) == {"optimizer": SGD, "trainer": {"max_steps": 3}}


def test_nested_part_is_replaced_and_its_siblings_kept(lab):
    linear = {"class_path": "lab.Linear", "init_args": {"scale": 3.0}}
    init_args = {"features": linear, "lr": 0.1}
    base = {"model": {"class_path": "lab.LeastSquares", "init_args": init_args}}
    swap = {"model": {"init_args": {"features": {"class_path": "lab.Cubic"}}}}
    assert folded(base, swap)["model"]["init_args"] == {
        "features": {"class_path": "lab.Cubic"},
        "lr": 0.1,
    }


@pytest.mark.parametrize("names", [("AdamW", "torch.optim.AdamW"), ("torch.optim.AdamW", "AdamW"),
                                   ("torch.optim.adamw.AdamW", "torch.optim.AdamW")])  # fmt: skip
def test_two_names_of_one_class_are_no_swap(names):
    first, second = names
    result = folded(
        {"optimizer": {"class_path": first, "init_args": {"lr": 0.3}}},
        {"optimizer": {"class_path": second, "init_args": {"eps": 0.1}}},
    )
    assert result["optimizer"] == {"class_path": second, "init_args": {"lr": 0.3, "eps": 0.1}}


def test_another_class_of_the_same_short_name_is_not_merged(monkeypatch):
    # a user's own AdamW: "AdamW" could now be either, so the fold may not guess
    own = type("AdamW", (torch.optim.AdamW,), {"__module__": "mylab"})
    module = type(sys)("mylab")
    module.AdamW = own
    monkeypatch.setitem(sys.modules, "mylab", module)
    full = {"optimizer": {"class_path": "mylab.AdamW"}}
    assert folded({"optimizer": ADAMW}, full) == full
    with pytest.raises(UserError, match=r"'AdamW'.*could be any of.*write the full path"):
        folded({"optimizer": {"class_path": "AdamW", "init_args": {"lr": 1}}}, full)


def test_lists_and_scalars_replace_and_null_clears():
    base = {"a": [1, 2], "b": 1, "c": {"class_path": "x.Y", "init_args": {"k": 1}}}
    assert folded(base, {"a": [3], "b": None, "c": None}) == {"a": [3], "b": None, "c": None}


A, B, C = ({"class_path": f"x.{name}"} for name in "ABC")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"a": [1]}, {"a+": [2, 3]}, {"a+": 4}], {"a": [1, 2, 3, 4]}),
        ([{"a": None}, {"a+": 1}], {"a": [1]}),
        ([{"a": A}, {"a+": B}], {"a": [A, B]}),  # one in the place of a list of one
        ([{"p": {"a": [A]}}, {"p.a+": [B]}, {"p": {"a+": C}}], {"p": {"a": [A, B, C]}}),
        ([{"p": {**A, "init_args": {"a": [1]}}}, {"p.a+": 2}],
         {"p": {**A, "init_args": {"a": [1, 2]}}}),
        # of another class nothing is left to append to: its default, which the parser knows
        ([{"p": {**A, "init_args": {"a": [1]}}}, {"p": {**B, "init_args": {"a+": 2}}}],
         {"p": {**B, "init_args": {"a+": [2]}}}),
        ([{"a+": 1}, {"a+": 2}], {"a+": [1, 2]}),
        ([{"a+": 1}, {"a": [2]}], {"a": [2]}),
        ([{"a+": A}, {"a.0.k": 1}], {"a+": [{**A, "init_args": {"k": 1}}]}),
        ([{"a": [A, B]}, {"a.1.k": 3}], {"a": [A, {**B, "init_args": {"k": 3}}]}),
        ([{"a": [A, B]}, {"a": {0: "x.C"}}], {"a": ["x.C", B]}),
        ([{"a": [{**A, "init_args": {"k": 1}}]}, {"a.0": B, "a+": C}, {"a.1.k": 2}],
         {"a": [B, {**C, "init_args": {"k": 2}}]}),
        ([{"a": [A, B]}, {"a": C}], {"a": C}),
        ([{"p": {"k": 1}}, {"p": {}}], {"p": {}}),
        ([{"p": {**A, "init_args": {"k": 1}}}, {"p": {}}], {"p": {**A, "init_args": {}}}),
        ([{"p": {**A, "init_args": {"k": 1}}}, {"p.init_args": {}, "p.j": 2}],
         {"p": {**A, "init_args": {"j": 2}}}),
        ([{"p": {"k": 1}}, {}], {"p": {"k": 1}}),
        ([{"trainer": None}, {"trainer.k": 1}], {"trainer": {"k": 1}}),
    ],
    ids=str,
)  # fmt: skip
def test_lists_are_appended_to_and_mappings_cleared(layers, expected):
    before = copy.deepcopy(layers)
    assert folded(*layers) == expected
    assert layers == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n+: 3", r"b\.yaml:1: n\+: appends to a list, and n is 1 \(a\.yaml:2\)"),
        ("part: {k+: 3}", r"b\.yaml:1: part\.k\+: appends to a list, and k is 3 \(a\.yaml:5\)"),
        ("list+:", r"b\.yaml:1: list\+: must be an item to append or a list of them, got None"),
        (
            "\nlist.2.k: 1",
            r"b\.yaml:2: list\.2: no such item: list is a list of 2 items, .* \(a\.yaml:3\)",
        ),
        (
            "nodes.0: null",
            r"b\.yaml:1: nodes\.0: an item cannot be null: write the list without it",
        ),
        ("list: {}", r"b\.yaml:1: list: must be \[\] to clear a list \(a\.yaml:3\), got {}"),
        ("list: {k: 1}", r"b\.yaml:1: list\.k: no such item: list is a list of 2 items"),
        ("trainer.callbacks.0.k: 1", r"b\.yaml:1: trainer\.callbacks\.0: no such item: .* 0 items"),
        (
            "model:",
            r"b\.yaml:1: model: is empty over keys that are set \(a\.yaml:7\): leave it out",
        ),
    ],
)
def test_what_can_be_no_list_is_refused_with_both_lines(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(
        "\nn: 1\nlist: [1, 2]\npart:\n  k: 3\n\nmodel: {k: 1}\nnodes: [x.A]\n"
    )
    Path("b.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        fold([read("a.yaml"), read("b.yaml")])


def test_each_item_of_a_list_keeps_the_line_where_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("trainer:\n  callbacks:\n    class_path: x.A\n")
    Path("b.yaml").write_text(
        "trainer:\n  callbacks+:\n  - class_path: x.B\n    init_args:\n      k: 1\n"
    )
    Path("c.yaml").write_text("\n\ntrainer.callbacks.0.k: 1\n")
    config = fold([read(f"{name}.yaml") for name in "abc"])
    lines = {"0.class_path": "a.yaml:3", "0.init_args.k": "c.yaml:3", "1": "b.yaml:3",
             "1.init_args.k": "b.yaml:5"}  # fmt: skip
    for key, line in lines.items():
        assert str(config.source(("trainer", "callbacks", *key.split(".")))) == line
    # what is still to be appended is found as the parser will name it
    default = fold([read("b.yaml")])
    assert str(default.source(("trainer", "callbacks", "0", "init_args", "k"))) == "b.yaml:5"
    assert at(default.values, ("trainer", "callbacks", "0", "init_args", "k")) == 1


def test_bare_class_names():
    assert folded({"o": ADAMW}, {"o": "torch.optim.AdamW"}) == {"o": ADAMW}
    assert folded({"o": ADAMW}, {"o": "torch.optim.SGD"}) == {"o": "torch.optim.SGD"}
    promoted = folded({"o": "torch.optim.SGD"}, {"o": {"init_args": {"lr": 1}}})
    assert promoted == {"o": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1}}}


def test_class_over_plain_arguments_replaces_them():
    # arguments without class_path belonged to the default class
    assert folded({"part": {"k": 3}}, {"part": {"class_path": "x.B"}}) == {
        "part": {"class_path": "x.B"}
    }


def test_dotted_keys_reach_through_init_args():
    base = Config(values={"optimizer": ADAMW})
    for key in ("optimizer.init_args.lr", "optimizer.lr"):
        assert override(base, key, 1, TEST).values["optimizer"]["init_args"] == {
            "lr": 1,
            "betas": [0.8, 0.9],
        }
    swapped = override(base, "optimizer.class_path", "torch.optim.SGD", TEST).values
    assert swapped == {"optimizer": SGD}


def test_inputs_are_not_modified():
    base = {"optimizer": copy.deepcopy(ADAMW)}
    result = folded(base, {"optimizer": {"init_args": {"lr": 9}}})
    result["optimizer"]["init_args"]["betas"].append(1)
    assert base == {"optimizer": ADAMW}


def test_provenance_names_file_and_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(
        "optimizer:\n  class_path: torch.optim.AdamW\n  init_args:\n    lr: 1e-3\n"
    )
    Path("b.yaml").write_text("\noptimizer.init_args.eps: 1\n")
    config = fold([read("a.yaml"), read("b.yaml")])
    assert config.values["optimizer"]["init_args"] == {"lr": 1e-3, "eps": 1}
    assert str(config.source(("optimizer", "init_args", "lr"))) == "a.yaml:4"
    assert str(config.source(("optimizer", "init_args", "eps"))) == "b.yaml:2"
    Path("c.yaml").write_text("optimizer: {class_path: torch.optim.SGD}\n")
    config = fold([config, read("c.yaml")])
    assert str(config.source(("optimizer", "init_args", "lr"))) == "c.yaml:1"


def test_paths_beside_the_file_that_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    Path("conf/model.yaml").write_text("class_path: lab.LeastSquares\n")
    Path("conf/shard.tar").touch()
    Path("here.tar").touch()
    Path("conf/here.tar").touch()
    Path("conf/base.yaml").write_text(
        "model: model.yaml\n"
        "data: {a: shard.tar, b: [./shard.tar], c: here.tar, d: none.tar, e: conf}\n"
    )
    values = read("conf/base.yaml").values
    assert values["model"] == {"class_path": "lab.LeastSquares"}
    beside = os.path.join("conf", "shard.tar")
    assert values["data"] == {
        "a": beside,
        "b": [beside],
        "c": "here.tar",
        "d": "none.tar",
        "e": "conf",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"bad\.yaml:3: key 'a' is given twice"),
        ("a: [1\n", r"bad\.yaml:2: not valid YAML"),
        ("- 1\n", r"bad\.yaml: must hold a mapping"),
        ("a: [1]\na+: 2\n", r"bad\.yaml:2: key 'a' is both given and appended to"),
    ],
)
def test_bad_files_are_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read("bad.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
         + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
         r"a\.yaml:1: more than 50000 keys and items, aliases followed"),
        (f'{{"a": {"[" * 99999}{"]" * 99999}}}', r"a\.yaml:1: nested deeper than 100 levels"),
        ("\na: &a [*a, *a]", r"a\.yaml:2: nested deeper than 100 levels"),
        (f"a: &a {'x' * 50000}\nb: [{'*a, ' * 999}]", "more than 10000000 characters, aliases"),
    ],
    ids=["aliases", "depth", "circle", "text"],
)  # fmt: skip
def test_a_file_that_would_fill_the_memory_is_refused_at_once(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.yaml")
    assert time.process_time() - start < 2  # half a second without the checks of types
