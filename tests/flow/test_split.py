import pytest

from pretzel.flow import ExplicitSplit, FractionSplit
from pretzel.flow.split import Layers


def test_explicit():
    assert ExplicitSplit([2, 1], 4).layers() == Layers(shallow=(2, 1), deep=4)
    assert ExplicitSplit([], 4).layers() == Layers(shallow=(), deep=4)


@pytest.mark.parametrize(
    ("total", "fraction", "blocks", "expected"),
    [
        (8, 0.5, 2, Layers(shallow=(2, 2), deep=4)),
        (10, 0.3, 3, Layers(shallow=(1, 1, 1), deep=7)),
        (6, 0.0, 0, Layers(shallow=(), deep=6)),
        (34, 10 / 34, 5, Layers(shallow=(2,) * 5, deep=24)),
    ],
)
def test_fraction(total, fraction, blocks, expected):
    split = FractionSplit(total, fraction, blocks).layers()
    assert split == expected
    assert sum(split.shallow) + split.deep == total


@pytest.mark.parametrize(
    "arguments", [(8, 0.5, 3), (8, 0.3, 2), (8, 1.0, 2), (8, 0.0, 2), (8, 0.5, 0)]
)
def test_fractions_that_do_not_divide_are_refused(arguments):
    with pytest.raises(ValueError, match=f"total={arguments[0]}"):
        FractionSplit(*arguments)


@pytest.mark.parametrize(("shallow", "deep"), [([0], 2), ([1], 0), ([1, -1], 2)])
def test_layers_must_be_positive(shallow, deep):
    with pytest.raises(ValueError, match="must be positive"):
        ExplicitSplit(shallow, deep)
