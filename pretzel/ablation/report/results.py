"""The results of a grid as a DataFrame."""

from pathlib import Path

import pandas as pd

from pretzel.ablation.ledger import State
from pretzel.ablation.report.comparison import load

_PARAMETERS = ("trainable_parameters", "frozen_parameters")
_COSTS = (*_PARAMETERS, "train_seconds", "step_seconds", "peak_memory_bytes")


def results(folder: Path | str) -> pd.DataFrame:
    """Return the results of a grid, one row for each run.

    Columns: ``arm``, one for each axis with the arm's choice, ``seed``, ``state``, the metrics of
    the grid, ``trainable_parameters``, ``frozen_parameters``, ``train_seconds``, ``step_seconds``,
    ``peak_memory_bytes``, and whatever else was logged at the end of the runs. A run that is not
    done has its row, with missing values. ``attrs`` holds the name of the ``baseline`` and the
    ``directions`` of the metrics, ``max`` or ``min``.

    Args:
        folder: The grid's output folder.

    Raises:
        UserError: If no grid has been run there.
    """
    comparison = load(folder)
    rows = []
    for run in comparison.runs:
        costs = {name: getattr(run, name) for name in _COSTS}
        rows.append(
            comparison.choices[run.arm]
            | {"arm": run.arm, "seed": run.seed, "state": run.state.value}
            | (costs if run.state is State.DONE else {})
            | run.metrics
        )
    directions = {metric.name: metric.direction for metric in comparison.metrics}
    columns = dict.fromkeys(["arm", *comparison.axes, "seed", "state", *directions, *_COSTS])
    logged = sorted({name for run in comparison.runs for name in run.metrics} - columns.keys())
    frame = pd.DataFrame(rows, columns=[*columns, *logged])
    frame.attrs |= {"baseline": comparison.baseline, "directions": directions}
    return frame
