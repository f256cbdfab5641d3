"""Says in the first batches of a fit what a model does not know, or leaves out, of its data.

A latent space that learned from pictures scales each channel to variance 1 over those; of others
its latents are larger or smaller, and the noise of training means something else. A tokenizer
spells words that it has not met, and a language model knows nothing of words that are spelled.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch.utilities import rank_zero_warn

from pretzel.latent.base import LatentSpace
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.sequence.document import Document, Text
from pretzel.typing import Float, Tensor

NUM_SAMPLES = 128
"""Images, and documents, that are looked at."""
STD_TOLERANCE, MEAN_TOLERANCE = 0.1, 0.3
"""Root mean square over channels by which deviations may differ from 1, and means from 0.

Of 128 images of easy-VQA those of the shipped FAE differ by 0.01 and 0.02, of the autoencoder by
0.03 and 0.14, of linear latents by 0.06 and 0.01; of Fluent Emoji the first two by
0.46 and 0.36, 0.67 and 0.32.
"""
SPELLED_TOLERANCE = 0.1
"""Share of words that may be spelled: of easy-VQA's the shipped tokenizer spells none, of Fluent
Emoji's 0.27."""

_MOST_BATCHES = 256
_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST = 4  # bytes: shorter words say little
_BYTES_PER_TOKEN = 2


@dataclass(kw_only=True)
class LatentMoments:
    """Sums over the positions of latents, by channel."""

    num_images: int = 0
    num_positions: int = 0
    sums: Float[Tensor, "2 d"] | None = None

    def add(self, latents: Float[Tensor, "m n d"]) -> None:
        """Take in clean latents."""
        rows = latents.detach().flatten(0, 1).float()
        sums = torch.stack([rows.sum(0), rows.square().sum(0)])
        self.sums = sums if self.sums is None else self.sums + sums
        self.num_images += len(latents)
        self.num_positions += len(rows)

    def warning(self, space: LatentSpace) -> str:
        """Return the sentence about latents that are of other images; empty if they are not."""
        assert self.sums is not None
        mean, square = self.sums.cpu() / self.num_positions
        variance = (square - mean**2).clamp(min=0)
        deviation = variance.sqrt()
        std_error = float((deviation - 1).square().mean().sqrt())
        mean_error = float(mean.square().mean().sqrt())
        if std_error <= STD_TOLERANCE and mean_error <= MEAN_TOLERANCE:
            return ""
        name = type(space).__name__
        return (
            f"latents of the first {self.num_images} images have a standard deviation of "
            f"{float(variance.mean().sqrt()):.2f} ({float(deviation.min()):.2f} to "
            f"{float(deviation.max()):.2f} by channel) and means of {mean_error:.2f} in the place "
            f"of 1 and 0: {name} was trained on other images than these; train it on these "
            f"({space.trained_by}) and name its file by `weights`"
        )


@dataclass(kw_only=True)
class WordCounts:
    """Words of documents, and how a tokenizer writes them.

    Attributes:
        encode: Returns token ids of a text.
        decode: Returns the text of token ids.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    num_documents: int = 0
    words: Counter[str] = field(default_factory=Counter, init=False)

    def add(self, documents: Sequence[Document]) -> None:
        """Take in the words of documents that are read."""
        for document in documents:
            for segment in document.segments:
                if isinstance(segment, Text) and segment.role != "dropped":
                    found = _WORD.findall(segment.content)
                    self.words.update(w for w in found if len(w.encode()) >= _SHORTEST)
        self.num_documents += len(documents)

    def warning(self, owner: str, remedy: str) -> str:
        """Return the sentence about words that are spelled; empty if few are.

        Args:
            owner: Whose tokenizer it is.
            remedy: What can be done about it.
        """
        spelled = Counter({w: n for w, n in self.words.items() if self._is_spelled(w)})
        share = spelled.total() / max(self.words.total(), 1)
        if share <= SPELLED_TOLERANCE:
            return ""
        examples = ", ".join(repr(word) for word, _ in spelled.most_common(3))
        return (
            f"{owner} does not know {share:.0%} of the words of the first {self.num_documents} "
            f"documents, which it spells or leaves out, {examples} among them: {remedy}"
        )

    def _is_spelled(self, word: str) -> bool:
        tokens = self.encode(f" {word}")
        is_lost = 2 * len(self.decode(tokens).strip()) < len(word)
        return is_lost or len(tokens) * _BYTES_PER_TOKEN > len(word.encode())


@dataclass(kw_only=True)
class ImageCounts:
    """Images of documents, and those that a model leaves out."""

    num_documents: int = 0
    num_images: int = 0
    num_left_out: int = 0

    def add(self, documents: Sequence[Document], views: Sequence[Document]) -> None:
        """Take in documents, and the part of each that is modelled."""
        self.num_documents += len(documents)
        for document, view in zip(documents, views, strict=True):
            self.num_images += document.num_images
            self.num_left_out += document.num_images - view.num_images

    def warning(self, owner: str) -> str:
        """Return the sentence about images that are left out; empty if none are.

        Args:
            owner: Who leaves them out.
        """
        if not self.num_left_out:
            return ""
        return (
            f"{owner} models no image behind another one: it leaves out {self.num_left_out} of the "
            f"{self.num_images} images of the first {self.num_documents} documents, and learns "
            "neither edits nor later turns"
        )


class WorldCheck:
    """Looks at the first batches that a model is trained on, and warns once of each fault.

    Args:
        model: The model; what its latent space and its vision-language model do not claim is not
            looked at.
    """

    def __init__(self, model: GenerativeModel) -> None:
        self._model = model
        self._latents = LatentMoments() if model.latent.trained_by else None
        self._images = ImageCounts()
        self._texts: WordCounts | None = None
        if isinstance(model, Pretzel) and (model.reads_text or model.answers):
            vlm = model.vlm
            self._texts = WordCounts(encode=vlm.encode_text, decode=vlm.decode_text)
        self._num_batches = 0

    def after(
        self, documents: Sequence[Document], latents: Float[Tensor, "m n d"]
    ) -> "WorldCheck | None":
        """Take in a batch; return None once there is nothing more to look at."""
        self._num_batches += 1
        if self._latents is not None:
            self._latents.add(latents)
            if self._latents.num_images >= NUM_SAMPLES:
                _say(self._latents.warning(self._model.latent))
                self._latents = None
        views = [self._model.view(document) for document in documents]
        if self._images.num_documents < NUM_SAMPLES:
            self._images.add(documents, views)
            if self._images.num_documents >= NUM_SAMPLES and isinstance(self._model, Pretzel):
                _say(self._images.warning(type(self._model.interleaving).__name__))
        if self._texts is not None:
            assert isinstance(self._model, Pretzel)
            name = type(self._model.vlm).__name__
            self._texts = after_words(self._texts, views, name, self._remedy)
        is_counted = self._images.num_documents >= NUM_SAMPLES
        is_done = is_counted and self._latents is None and self._texts is None
        return None if is_done or self._num_batches >= _MOST_BATCHES else self

    @property
    def _remedy(self) -> str:
        assert isinstance(self._model, Pretzel)
        if stage := self._model.vlm.trained_by:
            return f"train it on these texts ({stage}), or take one that knows them"
        return "take a vision-language model that knows them"


def after_words(
    words: WordCounts, documents: Sequence[Document], owner: str, remedy: str
) -> WordCounts | None:
    """Take in documents; of enough of them say what is spelled, and return None."""
    words.add(documents)
    if words.num_documents < NUM_SAMPLES:
        return words
    _say(words.warning(owner, remedy))
    return None


def _say(sentence: str) -> None:
    if sentence:
        rank_zero_warn(sentence)
