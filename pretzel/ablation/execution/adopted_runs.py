"""New metrics of a cell whose training was adopted: measured on what was trained, as it was."""

from typing import Any

from pretzel.ablation.gridfile.run_config import placed
from pretzel.ablation.identity.fingerprint import TEST_DATA, measured_as
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.plan import PlannedRun


def adopted_training(folder: RunFolder, cell: PlannedRun) -> dict[str, Any] | None:
    """Return what a cell is told otherwise than the grid says, since it was trained otherwise.

    Its record stays that of its training, so that ``why`` and ``diff`` tell what it is; only what
    measures is that of the grid.

    Args:
        folder: Its folder.
        cell: What the grid asks for.

    Returns:
        Identity, configuration, record and what was tuned; None if it was trained as is asked for,
        or nobody has accepted how it was.
    """
    result, spec = folder.result, folder.spec
    if result is None or spec is None:
        return None
    has = [result.get("identity"), result.get("evaluation")]
    if has[0] == cell.identity or not folder.acceptance(has, [cell.identity, cell.evaluation]):
        return None
    record, asked = spec.get("fingerprint", {}), cell.record
    trained_on = {k: v for k, v in record.get("data", {}).items() if not k.startswith(TEST_DATA)}
    tested_on = {k: v for k, v in asked["data"].items() if k.startswith(TEST_DATA)}
    return {
        "identity": has[0],
        "config": placed(measured_as(spec["config"], cell.config), folder.path),
        "tuned": result.get("tuned"),
        "fingerprint": {
            **record,
            "config": measured_as(record.get("config", {}), asked["config"]),
            "measuring_modules": asked["measuring_modules"],
            "data": trained_on | tested_on,
        },
    }
