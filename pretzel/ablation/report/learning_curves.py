"""Learning curves: the scalars worth one, and those of several seeds put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from pretzel.ablation.report.comparison import Comparison
from pretzel.ablation.report.event_files import Events

POINTS = 120
"""Most points of a curve on the page; what is between them is averaged."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """A curve over the seeds that have reached a step: their mean, the lowest and the highest."""

    steps: Float[np.ndarray, " points"]  # of training
    mean: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    seeds: int  # number of seeds with any value


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The learning curves of all arms in one scalar."""

    tag: str
    bands: dict[str, Band]  # of each arm that has one
    places: dict[str, int]  # of each arm in the grid, which gives it its colour


def learning_curves(
    comparison: Comparison, events: Mapping[str, Events], most: int
) -> tuple[list[Curves], int]:
    """Return at most so many curves worth showing, and how many further scalars there are.

    ``events`` holds what each run has logged, by its name.
    """
    places = {arm: place for place, arm in enumerate(comparison.arms)}
    curves = []
    for tag in _tags(comparison, events):
        bands = {}
        for arm, runs in comparison.by_arm.items():
            logged = [events[run.name].scalars.get(tag, {}) for run in runs if run.name in events]
            if (over_seeds := band(logged)) is not None:
                bands[arm] = over_seeds
        if bands:
            curves.append(Curves(tag=tag, bands=bands, places=places))
    return curves[:most], len(curves[most:])


def _tags(comparison: Comparison, events: Mapping[str, Events]) -> list[str]:
    """Return the scalars worth a curve: losses first, then the table's metrics in validation."""
    table = {metric.name.rpartition("/")[2] for metric in comparison.metrics}
    tags = {t for e in events.values() for t, points in e.scalars.items() if len(points) > 1}

    def rank(tag: str) -> tuple[int, str]:
        stage, _, name = tag.rpartition("/")
        if stage == "train":
            return (0 if name == "loss" else 2), tag
        return (1 if name in table else 3), tag

    plain = (t for t in tags if not t.startswith("lr-") and t not in ("epoch", "hp_metric"))
    counts = ("_n", "_n_real")
    return sorted((tag for tag in plain if not tag.endswith(counts)), key=rank)


def band(curves: Sequence[Mapping[int, float]], points: int = POINTS) -> Band | None:
    """Put curves of several seeds, value by step, together; None where no seed has two values.

    Values that are not finite are left out; with more steps than points, those between two points
    are averaged. A seed counts between its own first and last step.
    """
    columns = {seed: pd.Series(curve, dtype=float) for seed, curve in enumerate(curves)}
    frame = pd.DataFrame(columns).replace([np.inf, -np.inf], np.nan)
    frame = frame.dropna(axis=1, thresh=2).dropna(how="all").sort_index()
    if frame.empty:
        return None
    if len(frame) > points:
        bins = np.linspace(frame.index[0], frame.index[-1], points + 1)
        places = np.clip(np.searchsorted(bins, frame.index, side="right"), 1, points)
        frame = frame.assign(step=frame.index).groupby(places).mean().set_index("step")
    frame = frame.interpolate(method="index", limit_area="inside")  # seeds log at other steps
    return Band(
        steps=frame.index.to_numpy(np.float64),
        mean=frame.mean(axis=1).to_numpy(),
        low=frame.min(axis=1).to_numpy(),
        high=frame.max(axis=1).to_numpy(),
        seeds=frame.shape[1],
    )
