"""Base of callbacks that fit maps of encodings of training images, and measure them on others."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import Split, evaluation_samples, lacks
from callbacks.reporting import Stage, log_values
from pretzel.errors import NothingToMeasure, UserError


@runtime_checkable
class HasEncodings(Protocol):
    """A module whose encodings of images can be measured."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    def encodings(
        self, images: Float[Tensor, "m ..."]
    ) -> Mapping[str, Float[Tensor, "m n c"] | None]:
        """Return encodings of images in [-1, 1] by name; None for those that a model lacks."""


@dataclass(frozen=True, kw_only=True)
class EncodedSamples:
    """Encodings of samples, each a mean over positions, by name; and the captions."""

    encodings: dict[str, Float[Tensor, "m c"]]
    captions: list[str]


class EncodingEvaluation(Evaluation, ABC):
    """Measures encodings of a module's images, and logs what is found on rank zero's samples.

    An encoding that a model does not have, the adapter's of one without an adapter, is not
    applicable: that is said, and nothing is logged of it.

    Args:
        encodings: Names of the encodings.
        num_train: Training images that something is fitted on, the first ones.
        num_test: Images that are measured, the first ones; None for all.
        batch_size: Images encoded at a time.
        every_n_validations: Measure at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, or module or datamodule lack what is needed.
    """

    def __init__(
        self,
        encodings: list[str],
        num_train: int,
        num_test: int | None,
        batch_size: int,
        every_n_validations: int,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_train=num_train, num_test=num_test, batch_size=batch_size)
        self.encodings = encodings
        self.num_train = num_train
        self.num_test = num_test
        self.batch_size = batch_size

    @abstractmethod
    def measure(
        self, pl_module: LightningModule, train: EncodedSamples, test: EncodedSamples
    ) -> dict[str, float]:
        """Return what is logged."""

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        name = type(self).__name__
        if not isinstance(pl_module, HasEncodings):
            raise lacks(name, "a module with encodings(images)", pl_module)
        if not any(True for _ in evaluation_samples(trainer, split, name)):
            raise NothingToMeasure(f"there are no {split} samples")

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        assert isinstance(pl_module, HasEncodings)
        train = self._encoded(trainer, pl_module, "train", self.num_train)
        test = self._encoded(trainer, pl_module, stage, self.num_test)
        for name in set(self.encodings) - set(test.encodings):
            rank_zero_info(f"{type(self).__name__}: {name} is not applicable, the model has none")
        log_values(pl_module, stage, self.measure(pl_module, train, test))

    def _encoded(
        self, trainer: Trainer, module: HasEncodings, split: Split, limit: int | None
    ) -> EncodedSamples:
        samples = islice(evaluation_samples(trainer, split, type(self).__name__), limit)
        parts: dict[str, list[Tensor]] = {}
        captions: list[str] = []
        while batch := list(islice(samples, self.batch_size)):
            captions += [sample.caption for sample in batch]
            with torch.no_grad():
                images = torch.stack([sample.image for sample in batch])
                encoded = module.encodings(images.to(module.device))
            for name in self.encodings:
                if name not in encoded:
                    raise UserError(
                        f"{type(self).__name__}: encodings must be of {sorted(encoded)}, got {name}"
                    )
                if (values := encoded[name]) is not None:
                    parts.setdefault(name, []).append(values.double().mean(dim=1).cpu())
        return EncodedSamples(
            encodings={name: torch.cat(rows) for name, rows in parts.items()}, captions=captions
        )
