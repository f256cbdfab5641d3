"""Retrieval between images and captions: how far their representations are linearly the same."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize
from typing_extensions import override

from callbacks.encoding_evaluation import EncodedSamples, EncodingEvaluation
from callbacks.protocols import Split, lacks
from callbacks.reporting import logged_names
from pretzel.errors import NothingToMeasure, UserError

_RIDGE = 1e-3  # on weights of standardised encodings
_DIRECTIONS = ("to_text", "from_text")
_MEASURES = ("rank", "recall1", "recall5")


@runtime_checkable
class EmbedsText(Protocol):
    """A module whose language model's embeddings of texts can be measured."""

    def text_embeddings(self, texts: Sequence[str]) -> Float[Tensor, "k h"] | None:
        """Return the mean embedding of each text's tokens; None without a language model."""


class CaptionRetrieval(EncodingEvaluation):
    r"""Map encodings of images linearly to embeddings of their captions, and retrieve each other.

    The map is a ridge regression on training images, from an encoding's mean over positions to the
    mean of the VLM's own *input* embeddings over the caption's tokens: the space that the adapter
    maps into, where text and images stand side by side, before any layer mixes them. It is the same
    for all encodings and for every interleaving around one VLM. (It does not know the order of
    words: captions that differ in nothing else count as different and cannot be told apart.)

    On other images, by cosine of what is mapped and what is embedded, less the mean of the training
    captions:

    - ``<stage>/retrieval_<encoding>_to_text_recall1``, ``..._recall5``, ``..._rank``: the caption
      of an image among the different captions of all of them;
    - ``<stage>/retrieval_<encoding>_from_text_...``: an image of a caption among all images, for
      each different caption; every image with this very caption is right.

    A recall is the share of queries with something right among the first 1 or 5; the rank is the
    median over queries of the first that is right, from 1. Equal similarities stand in random
    order, and the expectation over it counts: so ``retrieval_chance_...`` is what no knowledge at
    all gives.

    Args:
        encodings: Names of the module's encodings: ``latents``, ``u``, ``adapter``, ``y_vlm``.
        num_train: Training images that the maps are fitted on, the first ones.
        num_test: Images that are measured; None for all.
        batch_size: Images encoded at a time.
        every_n_validations: Measure at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, module or datamodule lack what is needed, or fewer than
            two images have captions, or two captions are different.
    """

    def __init__(
        self,
        encodings: list[str],
        num_train: int = 2000,
        num_test: int | None = 1000,
        batch_size: int = 64,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(encodings, num_train, num_test, batch_size, every_n_validations)

    def metric_names(self) -> set[str]:
        """Return the names of all measures in both directions, and of the chances."""
        parts = product([*self.encodings, "chance"], _DIRECTIONS, _MEASURES)
        return logged_names(*("_".join(["retrieval", *words]) for words in parts))

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        super().check(trainer, pl_module, split)
        if not isinstance(pl_module, EmbedsText):
            raise lacks("CaptionRetrieval", "a module with text_embeddings(texts)", pl_module)
        if pl_module.text_embeddings(["a"]) is None:
            raise NothingToMeasure("the model has no language model whose embeddings to compare")

    @override
    def measure(
        self, pl_module: LightningModule, train: EncodedSamples, test: EncodedSamples
    ) -> dict[str, float]:
        assert isinstance(pl_module, EmbedsText)
        train, test = _captioned(train), _captioned(test)
        candidates = sorted(set(test.captions))
        if len(candidates) < 2 or len(train.captions) < 2:
            raise UserError(
                "CaptionRetrieval needs two different captions or more, and two training images "
                f"with captions, got {len(candidates)} and {len(train.captions)}"
            )
        texts = sorted({*candidates, *train.captions})
        embedded = pl_module.text_embeddings(texts)
        assert embedded is not None, "check has asked"
        embedding = dict(zip(texts, embedded.double().cpu(), strict=True))
        target = torch.stack([embedding[caption] for caption in train.captions])
        centre = target.mean(dim=0)
        y = normalize(torch.stack([embedding[caption] for caption in candidates]) - centre)
        right = torch.tensor([[own == one for one in candidates] for own in test.captions])
        similarities = {"chance": torch.zeros(right.shape, dtype=torch.float64)}
        for name, x in train.encodings.items():
            predict = linear_map(x, target - centre)
            similarities[name] = normalize(predict(test.encodings[name])) @ y.T
        return {
            f"retrieval_{name}_{direction}_{measure}": value
            for name, similarity in similarities.items()
            for direction, pair in zip(
                _DIRECTIONS, ((similarity, right), (similarity.T, right.T)), strict=True
            )
            for measure, value in retrieval(*pair).items()
        }


def _captioned(samples: EncodedSamples) -> EncodedSamples:
    """Return the samples that have captions."""
    places = [place for place, caption in enumerate(samples.captions) if caption.strip()]
    return EncodedSamples(
        encodings={name: x[places] for name, x in samples.encodings.items()},
        captions=[samples.captions[place] for place in places],
    )


def linear_map(
    x: Float[Tensor, "m c"], y: Float[Tensor, "m h"]
) -> Callable[[Float[Tensor, "k c"]], Float[Tensor, "k h"]]:
    """Return the ridge regression of y, whose mean is zero, on standardised x."""
    mean, scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-12)
    known = (x - mean) / scale
    ridge = len(x) * _RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(known.T @ known + ridge, known.T @ y)
    return lambda new: (new - mean) / scale @ weight


def retrieval(similarity: Float[Tensor, "q g"], right: Bool[Tensor, "q g"]) -> dict[str, float]:
    """Return recalls and median rank of queries that each have something right in the gallery.

    Expectations over random orders of what is equally similar: the first right one of t tied, h of
    them right, behind g others comes in place g + (t + 1) / (h + 1) on average, and is none of the
    first g + j with probability C(t - h, j) / C(t, j).
    """
    similarity = similarity.round(decimals=9)  # ties are ties whatever the order of samples
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    ahead = (similarity > best).sum(dim=1)
    tied = (similarity == best).sum(dim=1).double()
    hits = ((similarity == best) & right).sum(dim=1)
    values = {"rank": float((ahead + (tied + 1) / (hits + 1)).quantile(0.5))}
    for count in (1, 5):
        taken = (count - ahead).clamp(min=0).minimum(tied)
        log_miss = _log_falling(tied - hits, taken) - _log_falling(tied, taken)
        values[f"recall{count}"] = float((1 - log_miss.exp()).mean())
    return values


def _log_falling(n: Float[Tensor, " q"], k: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
    """Return the logarithm of n! / (n - k)!, minus infinity where k is larger than n."""
    return torch.lgamma(n + 1) - torch.lgamma(n - k + 1)
