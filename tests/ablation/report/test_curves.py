"""Event files read without torch, and curves of several seeds put together."""

import numpy as np
import pytest
from made_grid import write_events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretzel.ablation.report.event_files import OWN_SUFFIX, read
from pretzel.ablation.report.learning_curves import band


def test_what_was_logged_is_read(tmp_path):
    curve = {step: 1.0 / step for step in range(1, 40)}
    write_events(tmp_path, {"train/loss": curve}, [("test/samples", 20, "red")])
    write_events(tmp_path, {"final/acc": {0: 1.0}}, suffix=OWN_SUFFIX)
    found = read(tmp_path)
    assert found.scalars.keys() == {"train/loss"}
    assert found.scalars["train/loss"] == pytest.approx(curve)
    theirs = EventAccumulator(str(tmp_path)).Reload()
    assert [e.value for e in theirs.Scalars("train/loss")] == [
        *found.scalars["train/loss"].values()
    ]
    (image,) = theirs.Images("test/samples")
    assert found.pictures["test/samples"].encoded == image.encoded_image_string
    assert found.pictures["test/samples"].step == 20


def test_a_continued_run_replaces_what_it_repeats(tmp_path):
    write_events(tmp_path, {"loss": {1: 1.0, 2: 2.0, 3: 3.0}})
    first = next(tmp_path.iterdir())
    first.rename(tmp_path / "events.out.tfevents.1.a")  # the oldest by time and by name
    write_events(tmp_path, {"loss": {3: 30.0, 4: 40.0}})
    assert read(tmp_path).scalars["loss"] == {1: 1.0, 2: 2.0, 3: 30.0, 4: 40.0}


@pytest.mark.parametrize("harm", ["cut", "length", "body", "empty"])
def test_damaged_files_are_read_up_to_the_damage(tmp_path, harm):
    write_events(tmp_path, {"loss": {step: 1.0 for step in range(50)}})
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    if harm == "cut":
        data = data[: middle + 3]
    elif harm == "length":
        at = data.index(b"loss", middle) - 30
        data[at : at + 24] = bytes(24)
    elif harm == "body":
        data[data.index(b"loss", middle) - 6] ^= 0xFF
    else:
        data = bytearray()
    file.write_bytes(bytes(data))
    found = read(tmp_path).scalars.get("loss", {})
    assert len(found) < 50
    assert (len(found) > 10) == (harm != "empty")


def test_a_missing_folder_has_logged_nothing(tmp_path):
    assert read(tmp_path / "nowhere").scalars == {}


def test_band_of_equal_steps():
    found = band([{1: 1.0, 2: 2.0, 3: 6.0}, {1: 3.0, 2: 2.0, 3: 0.0}])
    assert found.steps.tolist() == [1, 2, 3]
    assert found.mean.tolist() == [2, 2, 3]
    assert found.low.tolist() == [1, 2, 0]
    assert found.high.tolist() == [3, 2, 6]
    assert found.seeds == 2


def test_a_seed_counts_as_far_as_it_got():
    found = band([{0: 0.0, 10: 10.0}, {0: 2.0, 2: 2.0, 4: 2.0}])
    assert found.steps.tolist() == [0, 2, 4, 10]
    assert found.mean.tolist() == [1, 2, 3, 10]  # between its steps a seed is interpolated


def test_values_that_are_not_numbers_are_left_out():
    found = band([{0: 0.0, 1: np.nan, 2: 2.0, 3: np.inf}, {}])
    assert found.steps.tolist() == [0, 2]
    assert found.seeds == 1
    assert band([{0: 1.0}, {0: np.nan, 1: np.nan}]) is None
    assert band([]) is None


def test_long_curves_are_averaged():
    curve = {step: float(step % 2) for step in range(10_000)}
    found = band([curve, {s + 3: v for s, v in curve.items()}], points=50)
    assert len(found.steps) <= 50
    assert found.mean == pytest.approx(0.5, abs=0.02)
    slope = band([{step: 2.0 * step for step in range(10_000)}], points=50)
    assert slope.mean == pytest.approx(2 * slope.steps)
