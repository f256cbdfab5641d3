"""Contract of an interleaving, which decides who feeds whom."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pretzel.errors import UserError
from pretzel.flow.conditioner import ConditionerCache
from pretzel.flow.deep import DeepStream
from pretzel.interleave.new_tokens import NewTokens
from pretzel.interleave.skips import SkipConnection
from pretzel.interleave.vision_input import VisionInput
from pretzel.sequence.document import Document
from pretzel.sequence.masks import Mask
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.base import AfterLayer, VLMCache, VLMStream


@dataclass(frozen=True, kw_only=True)
class StreamInputs:
    """A chunk of positions that enters both streams.

    Attributes:
        tokens: Token ids (at image positions: any).
        is_image: True at image positions.
        u: Output of the shallow flow at image positions, anything finite elsewhere.
        vision: Features that the vision-language model receives at image positions, anything
            finite elsewhere; None for u.
        index: Absolute index in the row.
        positions: Text axis, then grid coordinates.
        mask: True where a query may attend a key (all keys of the caches, new ones last); None
            for causal attention over right-padded rows without caches.
        blocks: The same for the deep stream, by blocks; None for ``mask``.
    """

    tokens: Int[Tensor, "b l"]
    is_image: Bool[Tensor, "b l"]
    u: Float[Tensor, "b l d"]
    index: Int[Tensor, "b l"]
    positions: Int[Tensor, "b l a"]
    mask: Bool[Tensor, "b 1 l k"] | None = None
    vision: Float[Tensor, "b l s"] | None = None
    blocks: Mask | None = None

    @property
    def deep_mask(self) -> Mask | None:
        """The mask that the deep stream takes."""
        return self.mask if self.blocks is None else self.blocks


@dataclass(frozen=True, kw_only=True)
class StreamOutputs:
    """States of a chunk.

    Attributes:
        deep: y_D, after the deep stream's final norm.
        text: Input of the language head, y_vlm + W_D y_D; None where no text follows.
    """

    deep: Float[Tensor, "b l w"]
    text: Float[Tensor, "b l h"] | None


@dataclass(frozen=True, kw_only=True)
class StreamCaches:
    """The caches of one generation, one for each stream the interleaving runs on every position.

    Attributes:
        deep: Keys and values of the deep stream.
        vlm: Keys and values of the vision-language model; None where it is not run.
    """

    deep: ConditionerCache
    vlm: VLMCache | None

    def rewind(self, num_positions: int) -> None:
        """Take the last positions out of the caches: they were provisional."""
        self.deep.rewind(num_positions)
        if self.vlm is not None:
            # It may not hold them: some vision inputs are known only once the image is complete
            self.vlm.rewind(max(self.vlm.length - self.deep.length, 0))

    def select(self, rows: Int[Tensor, " k"]) -> "StreamCaches":
        """Return caches of the given rows (repeats allowed), so that a shared prefix runs once."""
        vlm = None if self.vlm is None else self.vlm.select(rows)
        return StreamCaches(deep=self.deep.select(rows), vlm=vlm)


Caches = StreamCaches | None
"""Those of a generation; None for whole sequences, as in training."""


class Interleaving(nn.Module, ABC):
    """Joins the frozen vision-language model and the deep stream.

    An interleaving owns the parts between the streams (projections, skips, adapter), never the
    streams. Each stream keeps its precision: what the VLM is fed is cast to its own, what the flow
    reads of it to the flow's. One function serves training (no caches, whole sequences) and
    generation (caches, chunks of any length), so that both compute the same thing.

    Attributes:
        reads_text: Whether images are conditioned on the text before them.
        answers: Whether text after an image can be predicted (image-to-text, joint loss).
        feeds_vlm: Whether every position enters the VLM, which then keeps a cache.
        vision_input: Features that the VLM receives at image positions; None where they do not
            enter it.
        new_tokens: Tokens that the VLM's vocabulary lacks; None if it lacks none.
    """

    reads_text: bool
    answers: bool
    feeds_vlm: bool
    vision_input: VisionInput | None = None

    def __init__(self) -> None:
        super().__init__()
        self.new_tokens: NewTokens | None = None

    def start_from(self, vlm: VLMStream) -> None:
        """Fit what depends on the frozen model (once, at construction)."""
        if vlm.num_new_tokens and (self.reads_text or self.answers):
            self.new_tokens = NewTokens(vlm)

    def check_streams(self, vlm: VLMStream, deep: DeepStream) -> None:
        """Refuse streams that do not fit together (once, at construction).

        Raises:
            UserError: If the deep stream has no layers.
        """
        if getattr(deep.conditioner, "num_layers", None) == 0:
            raise UserError(
                f"split must give the deep stream of {type(self).__name__} a layer at least, got 0"
            )

    def embed(self, tokens: Int[Tensor, "b l"], vlm: VLMStream) -> Float[Tensor, "b l h"]:
        """Return the VLM's embeddings of tokens, new ones included."""
        return vlm.embed(tokens) if self.new_tokens is None else self.new_tokens.embed(tokens, vlm)

    def logits(self, text: Float[Tensor, "*b h"], vlm: VLMStream) -> Float[Tensor, "*b v"]:
        """Return the logits of the next token, new ones included, from states of text."""
        return vlm.logits(text) if self.new_tokens is None else self.new_tokens.logits(text, vlm)

    def skips_to_text(self) -> Sequence[SkipConnection] | None:
        """Return the skips through which alone the deep stream reaches text.

        While all of them are closed, text is scored without running it (stage S2).

        Returns:
            The skips, none if it does not reach text; None if it does otherwise than by skips, or
            that is not known.
        """
        return None

    def view(self, document: Document) -> Document:
        """Return the part of a document that this interleaving models, by default all of it.

        Of its images that is the first ones, all, some or none. The rest contributes nothing, and
        neither does a document of which no segment is left.
        """
        return document

    def new_caches(
        self,
        vlm: VLMStream,
        deep: DeepStream,
        batch_size: int,
        max_length: int,
        temperature: Float[Tensor, " b"] | None = None,
    ) -> StreamCaches:
        """Return empty caches for one generation.

        Args:
            vlm: The vision-language model.
            deep: The deep stream.
            batch_size: Rows.
            max_length: Positions of each.
            temperature: Divides the deep stream's attention logits of each row; None for 1.

        Raises:
            UserError: If the deep stream has no attention for a temperature to divide.
        """
        if temperature is not None and getattr(deep.conditioner, "num_layers", None) == 0:
            raise UserError(
                "guidance by attention temperature needs a deep stream with attention of its own, "
                f"which {type(self).__name__} has not"
            )
        return StreamCaches(
            deep=deep.new_cache(batch_size, max_length, temperature),
            vlm=vlm.new_cache(batch_size, max_length) if self.feeds_vlm else None,
        )

    def text_alone(self, inputs: StreamInputs, vlm: VLMStream) -> Float[Tensor, "b l h"] | None:
        """Return the input of the language head for whole sequences without the deep stream.

        Called while the :meth:`skips_to_text` are closed; None where there are none to close.
        """
        return None

    def run_over(
        self,
        at_image: Float[Tensor, "b l h"],
        inputs: StreamInputs,
        vlm: VLMStream,
        caches: Caches,
        after_layer: AfterLayer | None = None,
    ) -> Float[Tensor, "b l h"]:
        """Run the VLM over its own embeddings at text and ``at_image`` at image positions."""
        text = self.embed(inputs.tokens, vlm)
        states: Tensor = vlm(
            torch.where(inputs.is_image[..., None], at_image.to(text.dtype), text),
            inputs.index,
            inputs.mask,
            caches.vlm if caches else None,
            inputs.positions[..., 1:],
            after_layer,
        )
        return states

    @abstractmethod
    def forward(
        self, inputs: StreamInputs, vlm: VLMStream, deep: DeepStream, caches: Caches = None
    ) -> StreamOutputs:
        """Run a chunk of positions through both streams, committing it to the caches.

        Causality: states at a position depend on positions up to it, itself included, so that
        with the parameters of u_n read at the position before, d mu_n / d u_m = 0 for m >= n.
        """


@runtime_checkable
class InterleavingFactory(Protocol):
    """Makes an interleaving for sizes that its parent owns."""

    def __call__(self, channels: int, hidden_size: int, width: int) -> Interleaving:
        """Return an interleaving of streams with these sizes (D of u, VLM, deep stream)."""
        ...
