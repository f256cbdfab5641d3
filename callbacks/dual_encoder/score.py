"""Scores of images and prompts by the shipped dual encoder, for use without a network."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from typing_extensions import override

from callbacks.caption_retrieval import retrieval
from callbacks.dual_encoder.network import IMAGE_SIZE, MAX_TOKENS, DualEncoder, load_dual_encoder
from callbacks.feature_extractors import fingerprint
from callbacks.generation_metric import GenerationMetric
from pretzel.errors import NothingToMeasure


@final
class EmbeddedMatch(GenerationMetric):
    """How well images go with their prompts, by the dual encoder that is shipped.

    It knows the captions of the embedded data, coloured shapes and emoji, and nothing else: of
    other prompts its figures say nothing. Logs ``match_embedded``, the mean of 100 cos(image,
    prompt), and ``match_embedded_recall1``, the share of images to which none of the other prompts
    of this evaluation is nearer than their own. Prompts of more than 48 word pieces are cut;
    ``match_embedded_truncated`` is their fraction, logged when not 0.
    """

    name = "match_embedded"

    def __init__(self) -> None:
        self._encoder: DualEncoder | None = None
        self.reset()

    @override
    def prepare(self, device: torch.device) -> None:
        if self._encoder is None:
            self._encoder = load_dual_encoder()
        self._encoder.to(device)

    @override
    def names(self) -> set[str]:
        return {f"{self.name}{end}" for end in ("", "_recall1", "_n", "_truncated")}

    @override
    def describe(self) -> str:
        assert self._encoder is not None, "prepare() comes first"
        return (
            f"{self.name}: dual encoder of the embedded captions, state "
            f"{fingerprint(self._encoder)}, bilinear to {IMAGE_SIZE}x{IMAGE_SIZE}, then 128x128"
        )

    @override
    def facts(self) -> dict[str, dict[str, Any]]:
        assert self._encoder is not None, "prepare() comes first"
        facts = {
            "extractor": "dual encoder",
            "weights": fingerprint(self._encoder),
            "resize": f"bilinear to {IMAGE_SIZE}x{IMAGE_SIZE}, then 128x128",
            "antialias": True,
        }
        prompts = len(set(self._prompts))  # among more of them the own is found less often
        return {self.name: facts, f"{self.name}_recall1": facts | {"prompts": prompts}}

    @override
    def accepts(self, prompt: str) -> bool:
        return bool(prompt.strip())

    @override
    def reset(self) -> None:
        self._images: list[Float[Tensor, "n d"]] = []
        self._prompts: list[str] = []
        self._scores: list[float] = []

    @override
    @torch.no_grad()
    def update(self, images: Float[Tensor, "n 3 height width"], prompts: Sequence[str]) -> None:
        assert self._encoder is not None, "prepare() comes first"
        self._images.append(self._encoder.embed_images(images).cpu())
        self._prompts += prompts

    @override
    def image_scores(self) -> dict[str, list[float]]:
        return {self.name: list(self._scores)}

    @override
    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        assert self._encoder is not None, "prepare() comes first"
        if not self._prompts:
            raise NothingToMeasure(f"{self.name} needs at least 1 generated image, got 0")
        candidates = sorted(set(self._prompts))
        place = {prompt: number for number, prompt in enumerate(candidates)}
        own = torch.tensor([place[prompt] for prompt in self._prompts])
        similarity = torch.cat(self._images) @ self._encoder.embed_texts(candidates).cpu().T
        right = own[:, None] == torch.arange(len(candidates))
        self._scores = (100 * similarity[right]).tolist()  # one true entry a row, in their order
        values = {
            self.name: sum(self._scores) / len(own),
            f"{self.name}_recall1": retrieval(similarity, right)["recall1"],
            f"{self.name}_n": float(len(own)),
        }
        if unread := self._encoder.num_unread(self._prompts):
            values[f"{self.name}_truncated"] = unread / len(own)
            rank_zero_warn(
                f"{self.name}: {unread} of {len(own)} prompts are longer than {MAX_TOKENS} word "
                "pieces and were cut"
            )
        return values
