"""New metrics of a run whose training was adopted: measured on the weights as they were trained."""

from typing import Any

from pretzel.ablation.gridfile.run_config import placed
from pretzel.ablation.identity.fingerprint import TEST_DATA, measured_as
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.plan import PlannedRun


def adopted_training(folder: RunFolder, run: PlannedRun) -> dict[str, Any] | None:
    """Return the entries of ``run.json`` that stay as the run was trained, not as the grid says.

    Its record stays that of its training, so that ``why`` and ``diff`` tell what it is; only what
    measures is that of the grid. None if it was trained as the grid wants it, or nobody has
    accepted how it was.
    """
    result, spec = folder.result, folder.spec
    if result is None or spec is None:
        return None
    has = [result.get("identity"), result.get("evaluation")]
    if has[0] == run.identity or not folder.acceptance(has, [run.identity, run.evaluation]):
        return None
    record, wanted = spec.get("fingerprint", {}), run.record
    trained_on = {k: v for k, v in record.get("data", {}).items() if not k.startswith(TEST_DATA)}
    tested_on = {k: v for k, v in wanted["data"].items() if k.startswith(TEST_DATA)}
    return {
        "identity": has[0],
        "config": placed(measured_as(spec["config"], run.config), folder.path),
        "tuned": result.get("tuned"),
        "fingerprint": {
            **record,
            "config": measured_as(record.get("config", {}), wanted["config"]),
            "measuring_modules": wanted["measuring_modules"],
            "data": trained_on | tested_on,
        },
    }
