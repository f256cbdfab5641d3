"""A grid in TensorBoard: one HParams experiment at its root, and what each arm changes as text.

Lightning's own record keeps only ``hp_metric``; the swept axes and final metrics are written here,
by tensorboard's own protocol messages, without torch.
"""

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata, plugin_data_pb2, summary_v2
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pretzel.ablation.ledger import State
from pretzel.ablation.report.comparison import Comparison, RunResult
from pretzel.ablation.report.event_files import OWN_SUFFIX

CHANGES = "changes"
"""Tag of the text that says what an arm changes."""


def write(comparison: Comparison) -> None:
    """Write the experiment, its sessions and the changes; those of an earlier call are replaced.

    Runs that are not done have no session.

    Raises:
        OSError: If a folder cannot be written.
    """
    axes = [
        summary_v2.HParam(axis, summary_v2.Discrete(arms)) for axis, arms in comparison.axes.items()
    ]
    seed = summary_v2.HParam("seed", summary_v2.Discrete([int(s) for s in comparison.seeds]))
    metrics = [
        summary_v2.Metric(f"final/{metric.name}", display_name=f"{metric.name} {metric.arrow}")
        for metric in comparison.metrics
    ]
    experiment = summary_v2.hparams_config_pb([*axes, seed], metrics)
    all_changes = (f"**{arm}**\n\n{_changes(comparison, arm)}" for arm in comparison.arms)
    _write(comparison.output, [experiment, text_pb(CHANGES, "\n\n".join(all_changes))])
    for run in comparison.runs:
        folder = comparison.folder(run).path
        if folder.is_dir():
            text = text_pb(CHANGES, _changes(comparison, run.arm))
            session = _session(comparison, run) if run.state is State.DONE else []
            _write(folder, [*session, text])


def _changes(comparison: Comparison, arm: str) -> str:
    """Return what an arm changes as a Markdown list."""
    if arm == comparison.baseline:
        return "the baseline"
    lines = [f"- `{change.replace('`', chr(39))}`" for change in comparison.arms[arm]]
    reasons = comparison.absent[arm].items()
    lines += [f"- n/a{link and f', {link}'}: {why}" for link, why in reasons]
    return "\n".join(lines) or "nothing"


def _session(comparison: Comparison, run: RunResult) -> list[Summary]:
    """Return an arm and seed with its final metrics, as a session of the experiment."""
    choices = comparison.choices[run.arm] | {"seed": run.seed}
    started = summary_v2.hparams_pb(choices, trial_id=f"{run.arm}/seed{run.seed}")
    names = [metric.name for metric in comparison.metrics if metric.name in run.metrics]
    figures = [scalar_pb(f"final/{name}", run.metrics[name]) for name in names]
    end = plugin_data_pb2.SessionEndInfo(status=Status.STATUS_SUCCESS, end_time_secs=time.time())
    finished = Summary()
    finished.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(session_end_info=end)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    return [started, *figures, finished]


def _write(folder: Path, summaries: list[Summary]) -> None:
    for old in folder.glob(f"events.out.tfevents.*{OWN_SUFFIX}"):
        old.unlink()
    writer = EventFileWriter(str(folder), filename_suffix=OWN_SUFFIX)
    for summary in summaries:
        # through bytes: scalar_pb and hparams_pb may build on tensorflow's copy of the messages
        copy = Summary.FromString(summary.SerializeToString())
        writer.add_event(Event(summary=copy, wall_time=time.time(), step=0))
    writer.close()
