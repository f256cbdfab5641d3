"""CLIPScore with any CLIP of transformers."""

from typing import Any, final

from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel
from typing_extensions import override

from callbacks.image_text_score import ImageTextScore, cosines


@final
class CLIPScore(ImageTextScore):
    """CLIPScore as torchmetrics computes it: mean of 100 cos(image, prompt), clipped below at 0.

    (Hessel et al. 2021, arXiv 2104.08718, section 3, with the factor 100.) The name says which
    CLIP: ``clip_score_<last part of model>``. Prompts longer than the text model are truncated, the
    end token kept; ``<name>_truncated`` is their fraction, logged when not 0.

    Args:
        model: Local folder or hub id of a CLIP with its processor, for example
            ``openai/clip-vit-base-patch16``.
    """

    prefix = "clip_score"
    kind = "CLIP"
    classes = (CLIPModel,)

    @override
    def names(self) -> set[str]:
        return {self.name, f"{self.name}_n", f"{self.name}_truncated"}

    @override
    def scores(self, output: Any) -> dict[str, Float[Tensor, " n"]]:
        return {"": 100 * cosines(output)}

    @override
    def compute(self) -> dict[str, float]:
        values = super().compute()
        return values | {self.name: max(values[self.name], 0.0)}
