"""The page: complete, self-contained, and safe whatever arms are called."""

import math

import pytest
from html_page import Page
from made_grid import write_events, write_failure, write_plan, write_result

from pretzel.ablation.report.grid_report import Report


def page(folder):
    text = Report(folder, "pretzel compare 'a folder' --format html").text("html")
    return text, Page(text)


def test_every_arm_metric_and_missing_cell_is_there(output):
    _, found = page(output)
    for word in ("acc", "loss", "acuracy", "2 of 3 1 failed", "0 of 3 3 pending", "n/a", "—"):
        assert word in found.words, word
    assert "c/seed0 (failed): NonFiniteError: loss is nan at step 7" in found.words
    assert "d/seed0, seed1, seed2 (pending)" in found.words
    assert "model.lr: 1 -> 2" in found.words
    assert "no difference can be called significant" in found.words
    assert "pretzel compare 'a folder' --format html" in found.words
    assert "pretzel grid run ablations/made.yaml" in found.words
    assert found.tags.count("figure") == 3  # a plot for each metric
    assert len(found.ids) == len(set(found.ids))


def test_nothing_comes_from_elsewhere(output):
    write_events(
        output / "a" / "seed0", {"train/loss": {1: 2.0, 2: 1.0}}, [("test/samples", 2, "red")]
    )
    text, found = page(output)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert any(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert "@import" not in text
    assert "url(http" not in text
    assert "default-src 'none'" in text


def test_names_are_text(tmp_path):
    nasty = "<script>alert(1)</script>"
    arms = {"a": [], nasty: [f"model.x: <b> -> {nasty} & \"quoted\" 'too'"]}
    write_plan(
        tmp_path, arms, metrics={"a<b": "max"}, seeds=[0, 1], choices={nasty: {"axis": nasty}}
    )
    write_result(tmp_path, "a", 0, {"a<b": 1.0})
    write_failure(tmp_path, "a", 1, "ValueError: </td><img src=http://x onerror=alert(1)>")
    write_events(tmp_path / "a" / "seed0", {"<i>t": {1: 1.0, 2: 2.0}}, [("<u>", 1, "red")])
    _, found = page(tmp_path)
    assert {"script", "b", "i", "u"}.isdisjoint(found.tags)
    assert found.addresses == [a for a in found.addresses if a.startswith(("data:image/", "#"))]
    assert f"model.x: <b> -> {nasty} & \"quoted\" 'too'" in found.words
    assert "ValueError: </td><img src=http://x onerror=alert(1)>" in found.words


def test_curves_and_samples_of_every_arm(tmp_path):
    arms = {"a": [], "b": ["model.x: 1 -> 2"], "c": ["model.x: 1 -> 3"], "d": ["model.x: 1 -> 4"]}
    write_plan(
        tmp_path, arms, metrics={"test/acc": "max"}, seeds=[0, 1], absent={"d": {"": "not there"}}
    )
    for i, arm in enumerate("ab"):
        for seed in (0, 1):
            curve = {step: 1.0 / (step + i + seed) for step in range(1, 500)}
            scalars = {"train/loss": curve, "val/acc": {100: 0.5, 200: 0.6}, "epoch": curve}
            write_events(
                tmp_path / arm / f"seed{seed}", scalars,
                [("val/samples", 100, "red"), ("test/samples", 499, "blue")],
            )  # fmt: skip
            write_result(tmp_path, arm, seed, {"test/acc": 0.5 + 0.1 * seed})
    write_failure(tmp_path, "c", 0, "RuntimeError: exploded")
    text, found = page(tmp_path)
    assert "train/loss" in found.words
    assert "val/acc" in found.words
    assert "epoch" not in found.words
    assert found.words.count("a, 2 seeds, last") == 4  # the titles of line and band, in two charts
    assert found.tags.count("img") == 4  # two arms, two seeds: the sheets of the test
    assert found.words.count("step 499") == 4
    assert "no picture (failed): RuntimeError: exploded" in found.words
    assert "no picture (pending)" in found.words
    assert found.words.count("Seed ") == 2
    assert len(text) < 120_000  # 500 steps are averaged to fewer points


def test_many_large_pictures_are_compressed(output, monkeypatch):
    monkeypatch.setattr("pretzel.ablation.report.sample_sheets.AS_LOGGED_BYTES", 100)
    monkeypatch.setattr("pretzel.ablation.report.sample_sheets.MOST_BYTES", 300)
    for seed in (0, 1, 2):
        write_events(output / "a" / f"seed{seed}", {}, [("samples", 1, "red")])
    _, found = page(output)
    pictures = [address for address in found.addresses if address.startswith("data:")]
    assert pictures
    assert all(picture.startswith("data:image/webp") for picture in pictures)
    assert "Left out, to keep the page small: seed" in found.words
    assert "Compressed with losses" in found.words


def test_a_grid_in_which_nothing_has_run(tmp_path):
    write_plan(tmp_path, {"a": [], "b": ["x: 1 -> 2"]}, metrics={"acc": "max"}, seeds=[0])
    _, found = page(tmp_path)
    assert "0 of 2 runs done" in found.words
    assert "No scalar was logged more than once." in found.words


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e-12, 1e30, -5.0])
def test_plots_of_strange_values(tmp_path, value):
    write_plan(tmp_path, {"a": [], "b": ["x: 1 -> 2"]}, metrics={"acc": "max"}, seeds=[0, 1])
    for arm in "ab":
        for seed in (0, 1):
            write_result(tmp_path, arm, seed, {"acc": value})
            write_events(tmp_path / arm / f"seed{seed}", {"loss": {1: value, 2: value, 3: 1.0}})
    text, _ = page(tmp_path)
    drawn = text[text.index("<svg") :]
    assert '="nan' not in drawn
    assert '="inf' not in drawn
    assert "Mnan" not in drawn
