"""Protocols that a grid asks of modules, data and parts; to implement one needs no import."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Protocol, runtime_checkable

from typing_extensions import TypedDict


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
class ChecksData(Protocol):
    """A module that knows which data it can train on."""

    def check_data(self, data: object) -> None:
        """Refuse a data module whose items do not suit; the module may have no memory.

        It is not called where another stage's weights, which may decide what suits, are still to
        be trained.

        Raises:
            ValueError: With what does not suit.
        """


@runtime_checkable
class HasFacts(Protocol):
    """A callback that knows what values of its metrics must share to be comparable.

    By name of the metric, for example ``{"test/fid": {"extractor": "Inception"}}``.
    """

    facts: dict[str, dict[str, Any]]


class SampleResult(TypedDict):
    """One item of a test; a line of ``samples.jsonl.gz`` beside the results of a run."""

    item: str
    """Its name, the same in every run that is tested on it; once for each metric."""
    values: dict[str, float | None]
    """By metric as it is logged (``test/vqa``), which is the mean over items; None: no number."""
    group: NotRequired[str]
    """Items of one group stand or fall together, such as the questions about one image."""
    texts: NotRequired[dict[str, str]]
    """Shown with it, such as question, answer and truth; they need not be the same in all runs."""
    picture: NotRequired[str]
    """A small PNG in base64, shown with it."""


@runtime_checkable
class KeepsSamples(Protocol):
    """A module or callback that knows what every item of a test gave.

    A grid keeps it beside the results of a run: compared arms are tested on the same items, and
    those are one of the two sources of uncertainty.
    """

    sample_results: Sequence[SampleResult]
    """Results of the last test, of all processes, on the first one at least; empty before it."""


@runtime_checkable
class DigestsSamples(Protocol):
    """A module or callback whose results of every sample are worth a hash alone.

    Arms that give the same results bit for bit, by this or by :class:`KeepsSamples`, measure the
    same thing, whatever they claim to differ in.
    """

    sample_digest: str | None
    """Digest of all results of the last test, bit by bit; None before it."""


@runtime_checkable
class TimesItself(Protocol):
    """A callback that knows how much of a run's time it took."""

    evaluation_seconds: float
    """Wall time of the last fit or test."""
