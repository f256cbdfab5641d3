"""The deep stream behind its prompts: one left-to-right pass, both streams cached."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretzel.interleave.base import StreamCaches, StreamInputs
from pretzel.model import Pretzel
from pretzel.packing import PackedBatch
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import Branches, Inversion
from pretzel.sampling.samplers import Sampler, Sequential
from pretzel.sampling.stack import Sampled
from pretzel.sequence import Document, Image, Text
from pretzel.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Started:
    """Streams that have read their prompts up to begin-of-image.

    Attributes:
        caches: Caches of both streams, with room for the image.
        state: State of the deep stream at begin-of-image.
        is_valid: Which positions of the prompts are not padding.
        next_index: Absolute index of the first image position.
        place: Place of the image on the text axis.
    """

    caches: StreamCaches
    state: Float[Tensor, "b w"]
    is_valid: Bool[Tensor, "b l"]
    next_index: Int[Tensor, " b"]
    place: Int[Tensor, " b"]


def prompt_document(prompt: str, *, dropped: bool = False) -> Document:
    """Return the document of a prompt; ``dropped`` for the null context of guidance."""
    text = Text(content=prompt, role="dropped" if dropped else "context")
    return Document(key=prompt, segments=(text,))


def start(
    model: Pretzel,
    documents: Sequence[Document],
    temperature: Float[Tensor, " b"] | None = None,
) -> Started:
    """Read prompts up to begin-of-image, all rows at once, padded on the left.

    Args:
        model: The model.
        documents: Prompts.
        temperature: Divides the attention logits of the deep stream in each row; None for 1.
    """
    packed = _pack_prompts(model, documents)
    device = model.deep.head.weight.device
    packed = packed.to(device)
    b, length = packed.tokens.shape
    room = length + model.latent.num_positions
    caches = model.interleaving.new_caches(model.vlm, model.deep, b, room, temperature)
    channels = model.latent.channels
    inputs = StreamInputs(
        tokens=packed.tokens,
        is_image=packed.is_image,
        u=model.deep.head.weight.new_zeros(b, length, channels),
        index=packed.index,
        positions=packed.positions,
        mask=packed.mask,
    )
    streams = model.interleaving(inputs, model.vlm, model.deep, caches)
    return Started(
        caches=caches,
        state=streams.deep[:, -1],
        is_valid=packed.is_valid,
        next_index=packed.index[:, -1] + 1,
        place=packed.positions[:, -1, 0] + 1,
    )


def _pack_prompts(model: Pretzel, documents: Sequence[Document]) -> PackedBatch:
    # A view ends with its image; what stands before it, then begin-of-image, is the prompt.
    prompts = []
    for document in documents:
        whole = Document(key=document.key, segments=(*document.segments, Image()))
        viewed = model.interleaving.view(whole).segments
        prompts.append(Document(key=document.key, segments=viewed[:-1]))
    return model.packer(prompts, pad="left", open_image=True)


class StreamInversion(Inversion):
    """The inversion of the deep stream behind its prompts, both streams committed as it goes.

    With guidance the null branch runs beside the conditional one as further rows of the same
    batch, with its own cache rows; both receive the same guided u_n.

    Args:
        model: The model.
        documents: Prompts.
        z: Standard normal noise.
        guidance: How the branches are mixed.
        null_documents: Null context of each prompt; None for one without text.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """

    def __init__(
        self,
        model: Pretzel,
        documents: Sequence[Document],
        z: Float[Tensor, "b n d"],
        guidance: Guidance,
        null_documents: Sequence[Document] | None = None,
    ) -> None:
        self.model = model
        self.arguments = (guidance, null_documents)
        tempered = guidance.temperature != 1
        guided = guidance.has_null_branch(null_documents is not None)
        self.branches = Branches(z, model.deep.transform, guidance if guided else None)
        rows = list(documents)
        temperature = None
        if guided:
            keep = guidance.keeps_context or null_documents is None
            rows += list(documents if keep or null_documents is None else null_documents)
            if tempered:
                temperature = z.new_ones(len(rows))
                temperature[len(z) :] = guidance.temperature
        self.started = start(model, rows, temperature)
        # What the image's positions are given but u is the same at every step.
        n, r, device = self.num_positions, len(rows), z.device
        prompt = self.started.is_valid
        self.prompt_length = prompt.shape[1]
        self.is_valid = torch.cat([prompt, prompt.new_ones(r, n)], dim=1)[:, None, None]
        keys = self.prompt_length + n
        self.causal = prompt.new_ones(n, keys).tril(self.prompt_length)
        self.tokens = torch.full((r, n), model.vlm.special.pad, device=device)
        self.is_image = prompt.new_ones(r, n)
        self.index = self.started.next_index[:, None] + torch.arange(n, device=device)
        coordinates = model.packer.coordinates.to(device)
        place = self.started.place[:, None, None].expand(-1, n, -1)
        self.positions = torch.cat([place, coordinates.expand(r, -1, -1)], dim=-1)

    def step(self, index: int) -> None:
        """Set one position."""
        self.branches.write(index, index + 1, self.evaluate(index, index + 1))

    def evaluate(self, start: int, stop: int) -> Float[Tensor, "b k d"]:
        """Run the streams over what stands before each of the positions."""
        states = self.read(max(start - 1, 0), stop - 1)
        if start == 0:
            states = torch.cat([self.started.state[:, None], states], dim=1)
        return self.branches.invert(start, stop, self.model.deep.params(states, start))

    def rewind(self, start: int, stop: int) -> None:
        """Take the positions before each of the last ones out of both caches."""
        self.started.caches.rewind(stop - start - (start == 0))

    def read(self, start: int, stop: int) -> Float[Tensor, "r k w"]:
        """Run the streams over u_start .. u_{stop-1} and commit them; return the deep states."""
        u = self.branches.rows[:, start:stop]
        rows, length = u.shape[:2]
        if not length:
            return self.started.state.new_zeros(rows, 0, self.started.state.shape[-1])
        keys = self.prompt_length + stop
        mask = self.is_valid[..., :keys]
        if length > 1:  # a single position, the last, may attend all keys so far
            mask = mask & self.causal[start:stop, :keys]
        inputs = StreamInputs(
            tokens=self.tokens[:, start:stop],
            is_image=self.is_image[:, start:stop],
            u=u,
            index=self.index[:, start:stop],
            positions=self.positions[:, start:stop],
            mask=mask,
        )
        streams = self.model.interleaving(
            inputs, self.model.vlm, self.model.deep, self.started.caches
        )
        states: Tensor = streams.deep
        return states

    def finish(self) -> None:
        """Commit the last position, so that both caches hold the whole image."""
        self.read(self.num_positions - 1, self.num_positions)

    @property
    def estimate(self) -> Float[Tensor, "b n d"]:
        """The estimate of u, whatever it holds."""
        return self.branches.x

    def trial(self, z: Float[Tensor, "k n d"]) -> "StreamInversion":
        """Return the inversion of other noise behind empty prompts."""
        guidance, nulls = self.arguments
        return StreamInversion(
            self.model,
            [prompt_document("")] * len(z),
            z,
            guidance,
            None if nulls is None else [prompt_document("", dropped=True)] * len(z),
        )


def sample_u(
    model: Pretzel,
    documents: Sequence[Document],
    z: Float[Tensor, "b n d"],
    guidance: Guidance,
    null_documents: Sequence[Document] | None = None,
    sampler: Sampler | None = None,
) -> Sampled:
    """Sample u of one image for each prompt, each position committed once.

    Args:
        model: The model.
        documents: Prompts.
        z: Standard normal noise.
        guidance: How the branches are mixed.
        null_documents: Null context of each prompt; None for models that read no text.
        sampler: How positions are found; None for one after the other.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """
    inversion = StreamInversion(model, documents, z, guidance, null_documents)
    work = (sampler or Sequential()).solve(inversion, 0)
    inversion.finish()
    return Sampled(x=inversion.branches.x, work=(work,))
