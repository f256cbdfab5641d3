"""Features of the shipped easy-VQA judge, for FID and KID without a download."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from callbacks.easy_vqa.judge import SIZE, Judge, load_judge
from callbacks.feature_extractors import FeatureExtractor, fingerprint


class JudgeFeatures(FeatureExtractor):
    """The 64 penultimate features of the shipped easy-VQA judge; needs no download."""

    suffix = "_judge"
    file_names = ("easy-vqa-judge", "penultimate")

    def __init__(self) -> None:
        super().__init__()
        self.judge: Judge | None = None

    @override
    def prepare(self) -> None:
        if self.judge is None:
            self.judge = load_judge()

    @override
    def facts(self) -> dict[str, Any]:
        self.prepare()
        assert self.judge is not None
        return judge_facts(self.judge)

    @override
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        assert self.judge is not None, "prepare() comes first"
        return self.judge.features(images)


def judge_facts(judge: Judge) -> dict[str, Any]:
    """Return what computes features or verdicts of a judge."""
    return {
        "extractor": "easy-VQA judge",
        "weights": fingerprint(judge),
        "resize": f"area average to {SIZE}x{SIZE}",
        "antialias": True,
    }
