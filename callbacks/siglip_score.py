"""Scores of images and prompts by any SigLIP of transformers."""

from typing import Any, final

from jaxtyping import Float
from torch import Tensor
from transformers import Siglip2Model, SiglipModel
from typing_extensions import override

from callbacks.image_text_score import ImageTextScore, cosines


@final
class SigLIPScore(ImageTextScore):
    """Scores of a SigLIP or SigLIP 2 (Zhai et al. 2023, arXiv 2303.15343).

    Logs ``siglip_score_<last part of model>``, the mean of 100 cos(image, prompt), not clipped, and
    ``<name>_match``, the mean probability that the two belong together, which these models are
    trained to tell pair by pair (equation 1 there: the sigmoid of the scaled and shifted cosine).
    Texts are padded to the length that the text model was trained with. Longer ones are truncated;
    ``<name>_truncated`` is their fraction, logged when not 0.

    Args:
        model: Local folder or hub id of a SigLIP with its processor, for example
            ``google/siglip2-base-patch16-256``.
    """

    prefix = "siglip_score"
    kind = "SigLIP"
    classes = (SiglipModel, Siglip2Model)
    padding = "max_length"

    @override
    def names(self) -> set[str]:
        names = ("", "_match", "_n", "_truncated")
        return {f"{self.name}{name}" for name in names}

    @override
    def scores(self, output: Any) -> dict[str, Float[Tensor, " n"]]:
        match = output.logits_per_image.diagonal().sigmoid()
        return {"": 100 * cosines(output), "_match": match}
