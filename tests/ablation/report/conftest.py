import pytest
from made_grid import write_failure, write_plan, write_result

ARMS = {"a": [], "b": ["model.lr: 1 -> 2"], "c": ["model.x: A -> B"], "d": ["data.y: 1 -> 2"]}
ACCURACY = {
    "a": {0: 0.10, 1: 0.20, 2: 0.60},
    "b": {0: 0.20, 1: 0.40, 2: 0.60},
    "c": {1: 0.5, 2: 0.7},
}


@pytest.fixture
def accuracy():
    return ACCURACY


@pytest.fixture
def output(tmp_path):
    """A grid's folder: a and b complete, c with one failed seed, d never run."""
    metrics = {"acc": "max", "loss": "min", "acuracy": "max"}
    write_plan(tmp_path, ARMS, metrics=metrics, seeds=[0, 1, 2])
    for arm, values in ACCURACY.items():
        for seed, value in values.items():
            found = {"acc": value} | ({"loss": 2.0 * value} if arm != "b" else {})
            write_result(tmp_path, arm, seed, found)
    write_failure(tmp_path, "c", 0, "NonFiniteError: loss is nan at step 7\nand more")
    return tmp_path
