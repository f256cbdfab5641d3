"""Encodings of images and texts inside a model, to measure what each knows of an image."""

from collections.abc import Sequence

import torch
from torch import nn

from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.sequence.document import Document, Image
from pretzel.typing import Float, Tensor


def image_encodings(
    model: GenerativeModel, images: Float[Tensor, "m ..."], noise: Float[Tensor, "m n d"]
) -> dict[str, Float[Tensor, "m n c"] | None]:
    """Return encodings of images in [-1, 1] by name; None for what the model does not have.

    ``latents`` are clean. The others are those of a sequence of one image without text, whose
    latents are noised as in training: ``u``, the shallow flow's output; ``adapter``, the adapter's
    output, whatever the vision input is; ``y_vlm``, the last states of the vision-language model
    where images enter it.
    """
    with torch.no_grad():
        latents = model.latent.encode(images)
        found: dict[str, Tensor | None] = dict.fromkeys(("u", "adapter", "y_vlm"))
        if not isinstance(model, Pretzel):
            return {"latents": latents, **found}
        interleaving = model.interleaving
        watched: dict[str, nn.Module] = {}
        if isinstance(interleaving, VisionInterleaving):
            watched["adapter"] = interleaving.adapter
        if interleaving.feeds_vlm:
            watched["y_vlm"] = model.vlm
        documents = [Document(key="", segments=(Image(),))] * len(images)
        packed = model.pack(documents).to(model.device)
        x = latents.to(noise) + model.latent.noise * noise
        states: dict[str, Tensor] = {}
        handles = [
            part.register_forward_hook(
                lambda _, args, output, name=name: states.update({name: output})
            )
            for name, part in watched.items()
        ]
        try:
            found["u"] = model.score(documents, x).u
        finally:
            for handle in handles:
                handle.remove()
        places = packed.places(packed.is_image)
        for name, state in states.items():
            found[name] = state.flatten(0, 1)[places].view(*x.shape[:2], -1)
    return {"latents": latents, **found}


def mean_embeddings(model: Pretzel, texts: Sequence[str]) -> Float[Tensor, "k h"]:
    """Return the mean over the tokens of each text of the VLM's own input embeddings."""
    vlm = model.vlm
    tokens = [torch.tensor([vlm.encode_text(text)], device=model.device) for text in texts]
    with torch.no_grad():
        return torch.cat([vlm.embed(row).mean(dim=1) for row in tokens])
