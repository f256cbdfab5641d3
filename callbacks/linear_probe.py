"""Linear probes: how much of an image can be read off an encoding of it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import override

from callbacks.encoding_evaluation import EncodedSamples, EncodingEvaluation
from callbacks.reporting import logged_names
from pretzel.errors import UserError

_RIDGE = 1e-3  # on weights of standardised features
_LEAST = 20


class LinearProbe(EncodingEvaluation):
    """Fit linear classifiers on encodings of training images, and count what is right on others.

    A class is a word of the caption: ``groups: {colour: [red, blue], shape: [circle, square]}``
    has two classifiers; an image counts where its caption has exactly one word of the group. Each
    is a logistic regression on the encoding's mean over positions, channels standardised, with a
    small ridge. Logs ``<stage>/probe_<encoding>_<group>``, the share that is right, and
    ``probe_chance_<group>``, that of the most frequent class.

    Args:
        groups: Words by the name of the group, at least two each.
        encodings: Names of the module's encodings that are probed: ``latents`` and ``features`` of
            the stage of an autoencoder, ``latents``, ``u``, ``adapter`` and ``y_vlm`` of a Pretzel
            (:func:`pretzel.training.encodings.image_encodings`).
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
        super().__init__(encodings, num_train, num_test, batch_size, every_n_validations)
        for name, words in groups.items():
            if len(words) < 2 or len(set(words)) < len(words):
                raise UserError(
                    f"LinearProbe: groups.{name} must have two different words or more, got {words}"
                )
        self.groups = groups

    def metric_names(self) -> set[str]:
        """Return the names of what is right, by encoding and group, and of the chances."""
        names = [f"probe_{name}_{group}" for name in self.encodings for group in self.groups]
        return logged_names(*names, *(f"probe_chance_{group}" for group in self.groups))

    @override
    def measure(
        self, pl_module: LightningModule, train: EncodedSamples, test: EncodedSamples
    ) -> dict[str, float]:
        train_words, test_words = _words(train.captions), _words(test.captions)
        values: dict[str, float] = {}
        for group, words in self.groups.items():
            labels, others = _labels(train_words, words), _labels(test_words, words)
            if min(int((labels >= 0).sum()), int((others >= 0).sum())) < _LEAST:
                raise UserError(
                    f"LinearProbe: fewer than {_LEAST} captions have exactly one of the words of "
                    f"groups.{group}, {words}"
                )
            counted = others[others >= 0]
            values[f"probe_chance_{group}"] = float(counted.bincount().max() / len(counted))
            for name, x in train.encodings.items():
                classify = _classifier(x[labels >= 0], labels[labels >= 0], len(words))
                guesses = classify(test.encodings[name][others >= 0])
                values[f"probe_{name}_{group}"] = float((guesses == counted).double().mean())
        return values


def _words(captions: Sequence[str]) -> list[set[str]]:
    return [set(text.lower().replace(",", " ").replace(".", " ").split()) for text in captions]


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
