"""Names of the metrics that a configuration logs, by which those of a grid are checked."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor

from pretzel.ablation.protocols import NamesMetrics
from pretzel.errors import did_you_mean

_LIGHTNING = ("lightning.", "pytorch_lightning.")


@dataclass(frozen=True, kw_only=True)
class MetricNames:
    """Names that the parts of configurations log.

    Attributes:
        known: Those of the parts that say them; ``*`` stands for any text.
        silent: Classes of the parts that do not.
    """

    known: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()

    @classmethod
    def of(cls, kind: type, build: Callable[[], object]) -> "MetricNames":
        """Return the names that a module or callback logs; it is built only to be asked."""
        if issubclass(kind, Callback) and kind.__module__.startswith(_LIGHTNING):
            is_rate = issubclass(kind, LearningRateMonitor)
            return cls(known=frozenset({"lr-*"} if is_rate else ()))
        names = None
        if _says_names(kind):
            part = build()
            assert isinstance(part, NamesMetrics)
            names = part.metric_names()
        if names is None:
            return cls(silent=frozenset({f"{kind.__module__}.{kind.__qualname__}"}))
        return cls(known=frozenset(names))

    def __or__(self, other: "MetricNames") -> "MetricNames":
        return MetricNames(known=self.known | other.known, silent=self.silent | other.silent)

    def has(self, metric: str) -> bool:
        """Tell whether a metric is among those that are known."""
        return any(fnmatchcase(metric, name) for name in self.known)

    def near(self, metric: str) -> str:
        """Return which name was perhaps meant, as the end of a sentence."""
        return did_you_mean(metric, (name for name in self.known if "*" not in name))


def _says_names(kind: type) -> bool:
    """Tell whether a class says for itself what it logs."""
    for base in kind.__mro__:
        methods = {name for name, value in vars(base).items() if inspect.isfunction(value)}
        if methods - {"__init__"}:
            # what is added below may log something that the classes above know nothing of
            return "metric_names" in methods
    return False
