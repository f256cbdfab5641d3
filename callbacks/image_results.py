"""Results of single generated images, with a small picture of each, for the report of a grid."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from pretzel.ablation.protocols import SampleResult
from pretzel.media.base import Medium

MOST_PICTURES = 512
"""Images of a test that are kept as small pictures, the first ones."""
_SIDE = 64


def image_results(
    scores: Mapping[str, Sequence[float]], prompts: Sequence[str], pictures: Sequence[str]
) -> list[SampleResult]:
    """Return the scores of every image by metric, with prompts and pictures; none without scores.

    An image is named by its place and prompt: the same in every arm.
    """
    results: list[SampleResult] = []
    for place, prompt in enumerate(prompts if scores else ()):
        values: dict[str, float | None] = {f"test/{n}": own[place] for n, own in scores.items()}
        one = SampleResult(item=f"{place:05d}: {prompt}", values=values, texts={"prompt": prompt})
        if place < len(pictures):
            one["picture"] = pictures[place]
        results.append(one)
    return results


def small_pictures(medium: Medium, images: Float[Tensor, "n ..."]) -> Iterator[str]:
    """Yield pictures of images, PNG in base64, of at most 64 pixels a side."""
    for output in medium.outputs(images.cpu()):
        picture = medium.picture(output).convert("RGB")
        picture.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        picture.save(file, "PNG")
        yield base64.b64encode(file.getvalue()).decode()
