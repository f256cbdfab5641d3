"""Linear probes: what a latent space still knows of an image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import Split, evaluation_samples, lacks
from callbacks.reporting import Stage, log_values, logged_names
from pretzel.errors import NothingToMeasure, UserError

_RIDGE = 1e-3  # on weights of standardised features
_LEAST = 20


@runtime_checkable
class HasEncodings(Protocol):
    """A module whose encodings of images can be probed."""

    @property
    def device(self) -> torch.device:
        """Where the module computes."""

    def encodings(
        self, images: Float[Tensor, "m 3 height width"]
    ) -> Mapping[str, Float[Tensor, "m n c"]]:
        """Return encodings of images in [-1, 1] by name: latents, features."""


class LinearProbe(Evaluation):
    """Fit linear classifiers on encodings of training images, and count what is right on others.

    A class is a word of the caption: ``groups: {colour: [red, blue], shape: [circle, square]}``
    has two classifiers; an image counts where its caption has exactly one word of the group. Each
    is a logistic regression on the encoding's mean over positions, channels standardised, with a
    small ridge. Logs ``<stage>/probe_<encoding>_<group>``, the share that is right, and
    ``probe_chance_<group>``, that of the most frequent class.

    Args:
        groups: Words by the name of the group, at least two each.
        encodings: Names of the module's encodings that are probed: ``latents``, ``features``.
        num_train: Training images that the classifiers are fitted on, the first ones.
        num_test: Images that are counted; None counts all.
        batch_size: Images encoded at a time.
        every_n_validations: Probe at every n-th validation of a fit; tests always probe.

    Raises:
        UserError: If a number is below 1, a group has fewer than two words or a word twice, or
            module or datamodule lack what is needed.
    """

    def __init__(
        self,
        groups: dict[str, list[str]],
        encodings: list[str],
        num_train: int = 2000,
        num_test: int | None = 1000,
        batch_size: int = 64,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_train=num_train, num_test=num_test, batch_size=batch_size)
        for name, words in groups.items():
            if len(words) < 2 or len(set(words)) < len(words):
                raise UserError(
                    f"LinearProbe: groups.{name} must have two different words or more, got {words}"
                )
        self.groups = groups
        self.encodings = encodings
        self.num_train = num_train
        self.num_test = num_test
        self.batch_size = batch_size

    def metric_names(self) -> set[str]:
        """Return the names of what is right, by encoding and group, and of the chances."""
        names = [f"probe_{name}_{group}" for name in self.encodings for group in self.groups]
        return logged_names(*names, *(f"probe_chance_{group}" for group in self.groups))

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        if not isinstance(pl_module, HasEncodings):
            raise lacks("LinearProbe", "a module with encodings(images)", pl_module)
        if not any(True for _ in evaluation_samples(trainer, split, "LinearProbe")):
            raise NothingToMeasure(f"there are no {split} samples")

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        assert isinstance(pl_module, HasEncodings)
        train, train_words = self._pooled(trainer, pl_module, "train", self.num_train)
        test, test_words = self._pooled(trainer, pl_module, stage, self.num_test)
        values = {}
        for group, words in self.groups.items():
            labels, others = _labels(train_words, words), _labels(test_words, words)
            if min(int((labels >= 0).sum()), int((others >= 0).sum())) < _LEAST:
                raise UserError(
                    f"LinearProbe: fewer than {_LEAST} captions have exactly one of the words of "
                    f"groups.{group}, {words}"
                )
            counted = others[others >= 0]
            values[f"probe_chance_{group}"] = float(counted.bincount().max() / len(counted))
            for encoding in train:
                classify = _classifier(
                    train[encoding][labels >= 0], labels[labels >= 0], len(words)
                )
                guesses = classify(test[encoding][others >= 0])
                values[f"probe_{encoding}_{group}"] = float((guesses == counted).double().mean())
        log_values(pl_module, stage, values)

    def _pooled(
        self, trainer: Trainer, module: HasEncodings, split: Split, limit: int | None
    ) -> tuple[dict[str, Float[Tensor, "m c"]], list[set[str]]]:
        """Return means over positions by encoding, and the words of each caption."""
        parts: dict[str, list[Tensor]] = {name: [] for name in self.encodings}
        words: list[set[str]] = []
        images: list[Tensor] = []
        for number, sample in enumerate(evaluation_samples(trainer, split, "LinearProbe")):
            if number == limit:
                break
            words.append(set(sample.caption.lower().replace(",", " ").replace(".", " ").split()))
            images.append(sample.image)
            if len(images) == self.batch_size:
                self._encode(module, images, parts)
        self._encode(module, images, parts)
        return {name: torch.cat(rows) for name, rows in parts.items()}, words

    @staticmethod
    def _encode(
        module: HasEncodings, images: list[Tensor], parts: Mapping[str, list[Tensor]]
    ) -> None:
        """Encode a batch of images, and empty it."""
        if images:
            with torch.no_grad():
                encoded = module.encodings(torch.stack(images).to(module.device))
            for name, rows in parts.items():
                if name not in encoded:
                    raise UserError(
                        f"LinearProbe: encodings must be of {sorted(encoded)}, got {name}"
                    )
                rows.append(encoded[name].double().mean(dim=1).cpu())
            images.clear()


def _labels(captions: Sequence[set[str]], words: Sequence[str]) -> Int[Tensor, " m"]:
    """Return the number of each caption's word; -1 where there is none, or more than one."""
    found = [[n for n, word in enumerate(words) if word in caption] for caption in captions]
    return torch.tensor([one[0] if len(one) == 1 else -1 for one in found])


def _classifier(
    x: Float[Tensor, "m c"], labels: Int[Tensor, " m"], num_classes: int
) -> Callable[[Float[Tensor, "k c"]], Int[Tensor, " k"]]:
    """Return a multinomial logistic regression, fitted by L-BFGS to its only minimum."""
    mean, scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-12)
    with torch.inference_mode(False), torch.enable_grad():
        known = ((x - mean) / scale).clone()
        weight = known.new_zeros(num_classes, x.shape[1]).requires_grad_()
        bias = known.new_zeros(num_classes).requires_grad_()
        solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = cross_entropy(known @ weight.T + bias, labels.clone())
            value = value + _RIDGE * weight.square().sum()
            torch.autograd.backward(value)
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
    fitted, offset = weight.detach(), bias.detach()
    return lambda new: ((new - mean) / scale @ fitted.T + offset).argmax(dim=1)
