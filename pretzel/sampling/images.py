"""Text-to-image generation: one left-to-right pass with caches, then the shallow inverse."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pretzel.errors import UserError
from pretzel.flow.transforms import AffineTransform
from pretzel.interleave.base import StreamCaches, StreamInputs
from pretzel.model import Pretzel
from pretzel.packing import PackedBatch
from pretzel.sampling.denoise import Denoiser
from pretzel.sampling.guidance import Guidance
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


def start(model: Pretzel, documents: Sequence[Document]) -> Started:
    """Read prompts up to begin-of-image, all rows at once, padded on the left."""
    packed = _pack_prompts(model, documents)
    device = model.deep.head.weight.device
    packed = packed.to(device)
    b, length = packed.tokens.shape
    room = length + model.latent.num_positions
    caches = model.interleaving.new_caches(model.vlm, model.deep, b, room)
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


def sample_u(
    model: Pretzel,
    documents: Sequence[Document],
    z: Float[Tensor, "b n d"],
    guidance: Guidance,
    null_documents: Sequence[Document] | None = None,
) -> Float[Tensor, "b n d"]:
    """Sample u of one image for each prompt, position by position, each committed once.

    With guidance the null branch runs beside the conditional one as further rows of the same
    batch, with its own cache rows; both receive the same guided u_n.

    Args:
        model: The model.
        documents: Prompts.
        z: Standard normal noise.
        guidance: How the branches are mixed.
        null_documents: Null context of each prompt; needed when ``guidance.weight`` is not 0.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """
    guided = guidance.weight != 0 and null_documents is not None
    transform = model.deep.transform
    if guided and not isinstance(transform, AffineTransform):
        raise UserError(
            f"{type(guidance).__name__} needs an affine transform, got {type(transform).__name__}"
        )
    rows = [*documents, *(null_documents or [])] if guided else list(documents)
    started = start(model, rows)
    b, n, _ = z.shape
    coordinates = model.packer.coordinates.to(z.device)
    state = started.state
    valid = started.is_valid
    u = torch.empty_like(z)
    for position in range(n):
        params = model.deep.params(state)
        if guided:
            assert isinstance(transform, AffineTransform)
            mu, sigma = transform.location_and_scale(params)
            mu, sigma = guidance.mix(mu[:b], sigma[:b], mu[b:], sigma[b:])
            u[:, position] = mu + sigma * z[:, position]
        else:
            u[:, position] = transform.inverse(z[:, position], params)
        chunk = u[:, position : position + 1]
        if guided:
            chunk = torch.cat([chunk, chunk])
        valid = torch.cat([valid, valid.new_ones(len(valid), 1)], dim=1)
        place = torch.cat(
            [started.place[:, None], coordinates[position].expand(len(valid), -1)], dim=1
        )
        inputs = StreamInputs(
            tokens=torch.full((len(valid), 1), model.vlm.special.pad, device=z.device),
            is_image=torch.ones(len(valid), 1, dtype=torch.bool, device=z.device),
            u=chunk,
            index=started.next_index[:, None] + position,
            positions=place[:, None],
            mask=valid[:, None, None],
        )
        streams = model.interleaving(inputs, model.vlm, model.deep, started.caches)
        state = streams.deep[:, -1]
    return u


def sample_images(
    model: Pretzel,
    prompts: Sequence[str],
    z: Float[Tensor, "m n d"],
    guidance: Guidance,
    denoiser: Denoiser,
) -> Float[Tensor, "m 3 height width"]:
    """Generate one image for each prompt.

    Args:
        model: The model.
        prompts: Captions.
        z: Standard normal noise [m, N, D].
        guidance: How conditional and null predictions are mixed.
        denoiser: What is done about the training noise.

    Returns:
        Images, clipped to [-1, 1].
    """
    documents = [prompt_document(prompt) for prompt in prompts]
    nulls = [prompt_document(prompt, dropped=True) for prompt in prompts]
    with torch.inference_mode():
        u = sample_u(
            model, documents, z, guidance, nulls if model.interleaving.reads_text else None
        )
        x = model.shallow.inverse(u)

    def log_prob(point: Tensor) -> Tensor:
        return latent_log_prob(model, documents, point)

    clean = denoiser(x, model.latent.noise, log_prob)
    with torch.inference_mode():
        return model.latent.decode(clean).clamp(-1, 1)


def latent_log_prob(
    model: Pretzel, documents: Sequence[Document], x: Float[Tensor, "m n d"]
) -> Float[Tensor, " m"]:
    """Return the exact log-density of noised latents given their prompts (differentiable)."""
    whole = [
        Document(key=document.key, segments=(*document.segments, Image())) for document in documents
    ]
    return model.score(whole, x).log_prob
