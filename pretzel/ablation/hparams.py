"""HParams for TensorBoard: one experiment at the grid's root, one session for each cell.

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
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pretzel.ablation.compare import CellResult, Comparison
from pretzel.ablation.ledger import State

_SUFFIX = ".pretzel-hparams"


def write(comparison: Comparison) -> None:
    """Write the experiment and its sessions; those of an earlier call are replaced.

    Args:
        comparison: The grid; cells that are not done have no session.
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
    _write(comparison.output, [experiment])
    for cell in comparison.cells:
        if cell.state is State.DONE:
            _write(comparison.output / cell.arm / f"seed{cell.seed}", _session(comparison, cell))


def _session(comparison: Comparison, cell: CellResult) -> list[Summary]:
    chosen = comparison.choices[cell.arm] | {"seed": cell.seed}
    name = f"{cell.arm}/seed{cell.seed}"
    end = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(
            status=Status.STATUS_SUCCESS, end_time_secs=time.time()
        )
    )
    finished = Summary()
    finished.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(end),
        tensor=metadata.NULL_TENSOR,
    )
    return [
        summary_v2.hparams_pb(chosen, trial_id=name),
        *(
            scalar_pb(f"final/{metric.name}", cell.metrics[metric.name])
            for metric in comparison.metrics
            if metric.name in cell.metrics
        ),
        finished,
    ]


def _write(folder: Path, summaries: list[Summary]) -> None:
    for old in folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
        old.unlink()
    writer = EventFileWriter(str(folder), filename_suffix=_SUFFIX)
    for summary in summaries:
        # through bytes: scalar_pb and hparams_pb may build on tensorflow's copy of the messages
        copy = Summary.FromString(summary.SerializeToString())
        writer.add_event(Event(summary=copy, wall_time=time.time(), step=0))
    writer.close()
