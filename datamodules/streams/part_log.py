"""Logs how much of each part of a blend has been seen."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from lightning.pytorch import Trainer

from datamodules.sources.source import Part
from datamodules.streams.lanes import LaneState
from datamodules.streams.order import Order


@final
class PartLog:
    """Logs ``data/<name>/documents`` and ``data/<name>/epoch`` of each part to a run's loggers.

    An epoch is a pass over the part's training samples, on average over the lanes. Where the number
    of samples is not known before reading, it goes on with each shard.

    Args:
        trainer: The trainer of the run.
        parts: The parts.
        order: The order of the data.
    """

    def __init__(self, trainer: Trainer, parts: Sequence[Part], order: Order) -> None:
        self._trainer = trainer
        self._parts = parts
        self._num_lanes = order.num_lanes
        self._sizes = [
            (len(part.source.shards("train")), part.source.num_samples("train")) for part in parts
        ]

    def is_due(self, consumed: int) -> bool:
        """Tell whether the state behind so many batches is logged."""
        every: int = self._trainer.log_every_n_steps  # type: ignore[attr-defined]
        return consumed % every == 0

    def log(
        self, documents: Mapping[str, int], own: Mapping[str, int], lanes: Mapping[int, LaneState]
    ) -> None:
        """Log the state behind a batch; all processes call this together.

        Args:
            documents: Documents of each part before the run was resumed, of all processes.
            own: Documents of this process since then.
            lanes: Places of this process's lanes.
        """
        values = torch.tensor(
            [
                [float(own.get(part.name, 0)) for part in self._parts],
                [sum(self._epoch(i, lane) for lane in lanes.values()) for i in self._indices],
                [float(len(lanes))] * len(self._parts),
            ],
            dtype=torch.float64,
            device=self._trainer.strategy.root_device,
        )
        counts, passes, num_lanes = self._trainer.strategy.reduce(values, reduce_op="sum").tolist()
        if not self._trainer.is_global_zero:
            return
        logged: dict[str, float] = {}
        for i, part in enumerate(self._parts):
            logged[f"data/{part.name}/documents"] = documents.get(part.name, 0) + counts[i]
            logged[f"data/{part.name}/epoch"] = passes[i] / num_lanes[i]
        for logger in self._trainer.loggers:
            logger.log_metrics(logged, step=self._trainer.global_step)

    @property
    def _indices(self) -> range:
        return range(len(self._parts))

    def _epoch(self, index: int, lane: LaneState) -> float:
        """Return how often a lane has passed over its share of a part."""
        reader = lane.parts[index].reader
        num_shards, num_samples = self._sizes[index]
        turns = -(-num_shards // self._num_lanes)
        # The samples used of the block may reach into passes behind the one that it begins in.
        taken = reader.before + reader.used
        share = taken * self._num_lanes / num_samples if num_samples else 0.0
        return reader.number + reader.turn / turns + share
