"""Contract of what judges images for a metric: detectors, classifiers, models that answer."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch


class MetricPart(ABC):
    """Judges images for a metric.

    Weights are loaded by :meth:`prepare`, before training and only on the rank that measures.
    """

    no_laws: ClassVar[str] = "any may be tried; the metric's name or a fact beside its values says"

    @abstractmethod
    def prepare(self, device: torch.device) -> None:
        """Load what is needed and move it to ``device``; may be called again.

        Raises:
            UserError: If it cannot be had.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what judges, and a hash of its weights: values of others cannot be compared."""
