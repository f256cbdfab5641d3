"""Base of metrics between features of generated and of real images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.efficientnet_features import shared_efficientnet
from callbacks.feature_extractors import FeatureExtractor
from callbacks.feature_metrics.feature_rows import FeatureRows
from callbacks.feature_metrics.frechet import Moments
from callbacks.feature_metrics.reference_files import (
    read_reference,
    reference_file,
    write_reference,
)
from callbacks.generation_metric import ReferenceMetric
from pretzel.errors import NothingToMeasure

S = TypeVar("S", Moments, FeatureRows)


class FeatureMetric(ReferenceMetric, ABC, Generic[S]):
    """A metric between the features of generated and of real images.

    Beside its values it logs ``<name>_n`` generated and ``<name>_n_real`` images, ``<name>`` being
    that of the first value.

    Attributes:
        extractor: Computes the features.
        values: Names of the values.
        name: Name of the first one.

    Args:
        values: The same without the extractor's name.
        extractor: Computes the features; None for :class:`callbacks.EfficientNetFeatures`.
        kept: What is kept of features.
    """

    def __init__(
        self, values: Sequence[str], extractor: FeatureExtractor | None, kept: type[S]
    ) -> None:
        self.extractor = extractor or shared_efficientnet()
        self.values = tuple(f"{value}{self.extractor.suffix}" for value in values)
        self.name = self.values[0]
        self._kept: type[S] = kept
        self._generated: S = kept()
        self._real: S = kept()
        self._device = torch.device("cpu")

    @abstractmethod
    def measure(self, generated: S, real: S) -> Sequence[float]:
        """Return the values in the order of their names.

        Raises:
            NothingToMeasure, UserError: If there are too few images.
        """

    def of_features(self, generated: Float[Tensor, "n f"], real: Float[Tensor, "m f"]) -> float:
        """Return the first value between features that were computed already.

        Raises:
            NothingToMeasure, UserError: If there are too few.
        """
        self._generated, self._real = self._kept(), self._kept()
        self._generated.add(generated)
        self._real.add(real)
        return self.measure(self._generated, self._real)[0]

    def expected_of_halves(self, features: Float[Tensor, "n f"]) -> float | None:
        """Return the mean of the first value over all cuts of features into two halves.

        None where no equation says it, as by default.
        """
        return None

    def settings(self) -> dict[str, Any]:
        """Return the arguments that comparable values share."""
        return {}

    @override
    def prepare(self, device: torch.device) -> None:
        self.extractor.prepare()
        self.extractor.to(device)
        # distances are computed in float64, which Apple's GPUs do not have
        self._device = torch.device("cpu") if device.type == "mps" else device

    @override
    def describe(self) -> str:
        settings = "".join(f", {name} {value}" for name, value in self.settings().items())
        return f"{', '.join(self.values)}: {self.extractor.describe()}{settings}"

    @override
    def names(self) -> set[str]:
        return {*self.values, f"{self.name}_n", f"{self.name}_n_real"}

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        facts = {**self.extractor.facts(), **self.settings(), "n_real": len(self._real)}
        return {value: facts for value in self.values}

    @override
    def reset(self) -> None:
        self._generated = self._kept()

    @override
    def reset_real(self) -> None:
        self._real = self._kept()

    @override
    def load_real(self, images: str) -> bool:
        state = read_reference(reference_file(images, self.extractor, self._kept.kind))
        if state is None:
            return False
        self._real = self._kept.of_state(state)
        return True

    @override
    def save_real(self, images: str) -> None:
        path = reference_file(images, self.extractor, self._kept.kind)
        if path is not None:
            write_reference(path, self._real.state())

    @override
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        self._generated.add(self.extractor.features(images))

    @override
    def update_real(self, images: Float[Tensor, "n 3 height width"]) -> None:
        self._real.add(self.extractor.features(images))

    @override
    def compute(self) -> dict[str, float]:
        values = self.measure(self._generated, self._real)
        counts = {
            f"{self.name}_n": float(len(self._generated)),
            f"{self.name}_n_real": float(len(self._real)),
        }
        return dict(zip(self.values, values, strict=True)) | counts

    def require(self, least: int, argument: str | None = None) -> None:
        """Refuse sets of fewer images.

        Args:
            least: So many there must be.
            argument: That which asks for them, if one does.

        Raises:
            NothingToMeasure: If one has fewer.
        """
        n, n_real = len(self._generated), len(self._real)
        mend = "" if argument is None else f": lower {argument}, or give more images"
        if min(n, n_real) < least:
            raise NothingToMeasure(
                f"{self.name} needs at least {least} generated and {least} real images, got "
                f"{n} and {n_real}{mend}"
            )
