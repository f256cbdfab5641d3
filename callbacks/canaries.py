"""Checks of metrics where the answer is known, on real data: ``pretzel metrics canary``.

A metric that fails one of these says nothing of generated images either.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from callbacks.generation_metric import GenerationMetric, ReferenceMetric
from callbacks.prompts import Prompt, prompt_of, update
from callbacks.protocols import EvaluationSample
from callbacks.vqa.blind_baseline import BlindBaseline
from callbacks.vqa.normalisation import normalise
from callbacks.vqa.questions import questions_of
from callbacks.vqa.scoring import SoftAccuracy
from pretzel.errors import NothingToMeasure
from pretzel.media import Pictures
from pretzel.rng import stream

NUM_SPLITS = 8
"""Random halves of the real images, by which a distance's bias and spread are known."""
_NEAR, _FAR = 10.0, 5.0
"""Standard deviations over those, within which is near and beyond which is far.

Distances have long tails: of easy-VQA one half in nine is 5 from the mean of the others.
"""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One check of one metric.

    Attributes:
        metric: Name of its value.
        check: What was measured.
        expected: What the value must be, in words.
        value: The value.
        passed: Whether it is so.
    """

    metric: str
    check: str
    expected: str
    value: float
    passed: bool


def image_canaries(
    metrics: Sequence[GenerationMetric],
    samples: Sequence[EvaluationSample],
    device: torch.device,
) -> list[Canary]:
    """Check metrics of images on real ones, those of other media than pictures aside.

    Args:
        metrics: The metrics.
        samples: Real samples with captions, at least four.
        device: Where to compute.

    Raises:
        NothingToMeasure: If there are fewer.
    """
    if len(samples) < 4:
        raise NothingToMeasure(f"canaries need at least 4 real images, got {len(samples)}")
    found = []
    for metric in metrics:
        if not issubclass(Pictures, metric.measures):
            continue
        metric.prepare(device)
        if isinstance(metric, ReferenceMetric):
            images = torch.stack([sample.image for sample in samples])
            found += _of_distance(metric, images.to(device))
        else:
            prompts = [prompt_of(sample, [metric]) for sample in samples]
            pairs = zip(samples, prompts, strict=True)
            usable = [(sample.image, prompt) for sample, prompt in pairs if prompt is not None]
            found += _of_captions(metric, usable, device)
    return found


def _of_distance(metric: ReferenceMetric, images: Tensor) -> list[Canary]:
    half = len(images) // 2

    def distance(split: int, *, to_noise: bool = False) -> tuple[str, float]:
        order = torch.randperm(len(images), generator=stream("canary", split))
        other = images[order[half : 2 * half]]
        metric.reset()
        metric.reset_real()
        metric.update_real(images[order[:half]])
        metric.update(_noise_like(other) if to_noise else other, [""] * half)
        return next(iter(metric.compute().items()))

    name, value = distance(0)
    others = torch.tensor([distance(split)[1] for split in range(1, NUM_SPLITS + 1)]).double()
    bias, spread = float(others.mean()), float(others.std())
    noise = distance(0, to_noise=True)[1]
    worse = bias - noise if metric.higher_is_better else noise - bias
    return [
        Canary(
            metric=name,
            check=f"real against real, {half} and {half}",
            expected=f"must be the bias at this n, {bias:.4g} ± {_NEAR * spread:.2g}",
            value=value,
            passed=abs(value - bias) <= _NEAR * spread,
        ),
        Canary(
            metric=name,
            check=f"noise against real, {half} and {half}",
            expected=f"must be far {'below' if metric.higher_is_better else 'above'} that",
            value=noise,
            passed=worse > _FAR * spread,
        ),
    ]


def _of_captions(
    metric: GenerationMetric, samples: Sequence[tuple[Tensor, Prompt]], device: torch.device
) -> list[Canary]:
    if not samples:
        return []
    images = torch.stack([image for image, _ in samples]).to(device)
    captions = [prompt for _, prompt in samples]

    def score(shown: Tensor, prompts: Sequence[Prompt]) -> tuple[str, float]:
        metric.reset()
        update(metric, shown, prompts)
        return next(iter(metric.compute().items()))

    name, right = score(images, captions)
    checks = {"noise with the captions": score(_noise_like(images), captions)[1]}
    if metric.reads_prompts:
        order = torch.randperm(len(captions), generator=stream("canary")).tolist()
        shuffled = [captions[place] for place in order]
        checks["real images, captions shuffled"] = score(images, shuffled)[1]
    return [
        Canary(
            metric=name,
            check=check,
            expected=f"must be below {right:.4g}, that of real images",
            value=value,
            passed=value < right,
        )
        for check, value in checks.items()
    ]


def _noise_like(images: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    noise = torch.rand(images.shape, generator=stream("canary", "noise")) * 2 - 1
    return noise.to(images.device)


def question_canaries(
    training: Sequence[tuple[str, str]], samples: Sequence[EvaluationSample]
) -> list[Canary]:
    """Check the scoring of answers by answers that need no image.

    Args:
        training: Questions and answers of the training split.
        samples: Samples whose questions are asked.
    """
    questions = [question for sample in samples for question in questions_of(sample)]
    if not questions or not training:
        return []

    def exact(answers: Sequence[str]) -> float:
        pairs = zip(questions, answers, strict=True)
        answered = [replace(question, answer=answer) for question, answer in pairs]
        return SoftAccuracy().values(answered, "vqa")["vqa_exact"]

    truths = Counter(normalise(question.truth) for question in questions)
    (majority, count), share = truths.most_common(1)[0], 1 / len(questions)
    blind = BlindBaseline(training)
    of_majority = exact([majority] * len(questions))
    of_blind = exact([blind.answer(question.question) for question in questions])
    return [
        Canary(
            metric="vqa_exact",
            check=f"always {majority!r}, the most frequent answer",
            expected=f"must be its share, {count * share:.4g}",
            value=of_majority,
            passed=abs(of_majority - count * share) < 1e-9,
        ),
        Canary(
            metric="vqa_exact",
            check="the true answers",
            expected="must be 1",
            value=exact([question.truth for question in questions]),
            passed=exact([question.truth for question in questions]) == 1,
        ),
        Canary(
            metric="vqa_blind_exact",
            check="each question's most frequent answer in training",
            expected=f"the blind baseline, must be at least {of_majority:.4g}",
            value=of_blind,
            passed=of_majority <= of_blind < 1,
        ),
    ]
