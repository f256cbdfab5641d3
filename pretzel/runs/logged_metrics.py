"""Values that a run has logged so far, for its checkpoints: Lightning's own leave them out.

Means over an epoch, torchmetrics of the module, and the last values that callbacks may monitor
would otherwise begin anew in the middle of an epoch.
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import (
    _Metadata,
    _ResultCollection,
    _ResultMetric,
    _Sync,
)
from torch import Tensor
from torch.utils._pytree import tree_map
from torchmetrics import Metric

_VALUES = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
_META = (
    "fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph",
    "add_dataloader_idx", "dataloader_idx", "metric_attribute",
)  # fmt: skip
_SUMS = ("value", "cumulated_batch_size", "_forward_cache")


def logged_state(trainer: Trainer) -> dict[str, Any]:
    """Return the values that the training loop and the module have logged, in plain types."""
    connector = trainer._logger_connector
    results = trainer.fit_loop.epoch_loop._results
    module = trainer.lightning_module
    return {
        "values": _moved({name: getattr(connector, name) for name in _VALUES}),
        "first": connector._first_loop_iter,
        "hook": connector._current_fx,
        "results": {key: _result_state(result) for key, result in results.items()},
        "metrics": {name: _metric_state(metric) for name, metric in _metrics(module).items()},
    }


def restore_logged(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put back what :func:`logged_state` returned, when the epoch is about to continue."""
    connector = trainer._logger_connector
    device = trainer.strategy.root_device
    for name in _VALUES:
        setattr(connector, name, _moved(state["values"][name]))
    connector._first_loop_iter = state["first"]
    connector._current_fx = state["hook"]
    metrics = _metrics(trainer.lightning_module)
    for name, saved in state["metrics"].items():
        if name in metrics:
            _restore_metric(metrics[name], saved, device)
    results: _ResultCollection = trainer.fit_loop.epoch_loop._results
    for key, saved in state["results"].items():
        meta = _meta(trainer, saved)
        metric = metrics.get(meta.metric_attribute or "")
        if not saved["is_tensor"] and metric is None:
            continue  # it is no longer a part of the module
        result = _ResultMetric(meta, saved["is_tensor"])
        for name, value in saved["sums"].items():
            setattr(result, name, value)
        if metric is not None:
            result.value = metric
        result.has_reset = saved["has_reset"]
        result._update_count = saved["updates"]
        results[key] = result.to(device)


def _moved(values: Any, device: torch.device | str = "cpu") -> Any:  # noqa: ANN401
    """Return values in dictionaries and lists, tensors on a device and without their graph."""
    return tree_map(lambda v: v.detach().to(device) if isinstance(v, Tensor) else v, values)


def _result_state(result: _ResultMetric) -> dict[str, Any]:
    meta = result.meta
    sums = {name: getattr(result, name, None) for name in _SUMS}
    return {
        "meta": {name: getattr(meta, name) for name in _META},
        "reduce": meta.reduce_fx.__name__,
        "sync": [meta.sync.should, meta.sync.rank_zero_only],
        "is_tensor": result.is_tensor,
        "sums": _moved({k: v for k, v in sums.items() if isinstance(v, Tensor)}),
        "has_reset": result.has_reset,
        "updates": result._update_count,
    }


def _meta(trainer: Trainer, saved: dict[str, Any]) -> _Metadata:
    meta = _Metadata(**saved["meta"], reduce_fx=getattr(torch, saved["reduce"]))
    should, rank_zero_only = saved["sync"]
    meta.sync = _Sync(
        _should=should, fn=trainer.strategy.reduce, _group=None, rank_zero_only=rank_zero_only
    )
    return meta


def _metrics(module: LightningModule) -> dict[str, Metric]:
    return {name: part for name, part in module.named_modules() if isinstance(part, Metric)}


def _metric_state(metric: Metric) -> dict[str, Any]:
    values = {name: getattr(metric, name) for name in metric._defaults}
    return {"values": _moved(values), "updates": metric._update_count}


def _restore_metric(metric: Metric, saved: dict[str, Any], device: torch.device) -> None:
    for name, value in _moved(saved["values"], device).items():
        setattr(metric, name, value)
    metric._update_count = saved["updates"]
    metric._computed = None
