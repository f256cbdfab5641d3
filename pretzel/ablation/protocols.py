"""What a grid asks of modules, data and parts; each may be implemented without importing it."""

from typing import ClassVar, Protocol, runtime_checkable


@runtime_checkable
class ExampleForward(Protocol):
    """A module whose cost can be counted."""

    def example_forward(self) -> None:
        """Run the forward of one training step on one made-up sample, on the module's device.

        The module has no memory (see :mod:`pretzel.ablation.planning.flops`): nothing may depend
        on the data of floating-point tensors.
        """


@runtime_checkable
class Manifested(Protocol):
    """A data module, or a part of one, that can tell what data it will read."""

    def manifest(self) -> dict[str, str]:
        """Return a content mark of each file, by a name that does not depend on the machine."""


class EvaluationOnly(Protocol):
    """A part that changes what is measured, sampled or shown, and never the weights.

    A run has two fingerprints (:mod:`pretzel.ablation.identity.fingerprint`). A part whose class
    says ``evaluation_only = True`` belongs to the second one wherever it stands in a configuration:
    exchanging it measures finished checkpoints anew and trains nothing again. Such a part draws no
    numbers from the global random state while a model trains, and changes no parameter, gradient,
    optimizer or learning rate.
    """

    evaluation_only: ClassVar[bool]
