"""Protocols that a grid asks of modules, data and parts; to implement one needs no import."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable


@runtime_checkable
class ExampleForward(Protocol):
    """A module whose FLOPs can be counted."""

    def example_forward(self) -> None:
        """Run the forward of one training step on one made-up sample, on the module's device.

        The module has no memory (see :mod:`pretzel.ablation.planning.flops`): nothing may depend
        on the data of floating-point tensors.
        """


@runtime_checkable
class Exports(Protocol):
    """A module that can be a stage: it gives its weights to other runs."""

    def export(self, path: Path) -> None:
        """Write the weights as safetensors."""


@runtime_checkable
class Manifested(Protocol):
    """A data module, or a part of one, that can tell what data it will read."""

    def manifest(self) -> dict[str, str]:
        """Return the content hash of each file, by a name that does not depend on the machine."""


class EvaluationOnly(Protocol):
    """A part that affects measuring, sampling or display only, never the weights.

    A run has two hashes (:mod:`pretzel.ablation.identity.fingerprint`). A part whose class says
    ``evaluation_only = True`` belongs to the second one wherever it stands in a configuration:
    exchanging it measures finished checkpoints anew and trains nothing again. Such a part draws no
    numbers from the global random state while a model trains, and changes no parameter, gradient,
    optimizer or learning rate.
    """

    evaluation_only: ClassVar[bool]


@runtime_checkable
class NamesMetrics(Protocol):
    """A module or callback that says which metrics it logs, so that a grid's can be checked.

    A class says it for itself: a subclass with methods of its own says it again, or its names are
    unknown.
    """

    def metric_names(self) -> Collection[str] | None:
        """Return every name under which it may log, such as ``test/right``; None if unknown.

        ``*`` in a name stands for any text.
        """


@runtime_checkable
class CountsSamples(Protocol):
    """A module that says what its losses are means over.

    Arms that are compared by a loss should count as many samples for it.
    """

    def counted_samples(self, data: object) -> Mapping[str, float]:
        """Return the mean number of samples of each kind that a step of one process counts.

        For example ``{"images after text": 13.6, "answers": 2.4}``; nothing where the data module
        does not tell.
        """


@runtime_checkable
class HasFacts(Protocol):
    """A callback that knows what values of its metrics must share to be comparable.

    By name of the metric, for example ``{"test/fid": {"extractor": "Inception"}}``.
    """

    facts: dict[str, dict[str, Any]]


@runtime_checkable
class KeepsSamples(Protocol):
    """A module or callback that knows the result of every sample of a test.

    Arms whose digests are equal measure the same thing, whatever they claim to differ in.
    """

    sample_digest: str | None
    """Digest of all results of the last test, bit by bit; None before it."""
