"""Checks of metrics where the answer is known, on real data: ``pretzel metrics canary``.

A metric that fails one of these says nothing of generated images either.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from callbacks.canary import Canary, noise_like
from callbacks.distance_canaries import NUM_RESAMPLINGS, distance_canaries
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

_STANDARD_ERRORS = 4.0
"""Over images, by which a score of captions must fall: chance does that once in 30,000 times."""


def image_canaries(
    metrics: Sequence[GenerationMetric],
    samples: Sequence[EvaluationSample],
    device: torch.device,
    num_resamplings: int = NUM_RESAMPLINGS,
) -> list[Canary]:
    """Check metrics of images on real ones, those of other media than pictures aside.

    Args:
        metrics: The metrics.
        samples: Real samples with captions, at least four.
        device: Where to compute.
        num_resamplings: Random halves of the images that a distance is compared with.

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
            found += distance_canaries(metric, images.to(device), num_resamplings)
        else:
            prompts = [prompt_of(sample, [metric]) for sample in samples]
            pairs = zip(samples, prompts, strict=True)
            usable = [(sample.image, prompt) for sample, prompt in pairs if prompt is not None]
            found += _of_captions(metric, usable, device)
    return found


def _of_captions(
    metric: GenerationMetric, samples: Sequence[tuple[Tensor, Prompt]], device: torch.device
) -> list[Canary]:
    if not samples:
        return []
    images = torch.stack([image for image, _ in samples]).to(device)
    captions = [prompt for _, prompt in samples]

    def score(shown: Tensor, prompts: Sequence[Prompt]) -> tuple[str, float, list[float]]:
        metric.reset()
        update(metric, shown, prompts)
        name, value = next(iter(metric.compute().items()))
        return name, value, metric.image_scores().get(name, [])

    name, right, of_images = score(images, captions)
    checks = {"noise with the captions": score(noise_like(images), captions)}
    if metric.reads_prompts:
        order = torch.randperm(len(captions), generator=stream("canary")).tolist()
        shuffled = [captions[place] for place in order]
        checks["real images, captions shuffled"] = score(images, shuffled)
    found = []
    for check, (_, value, of_others) in checks.items():
        error, beyond = 0.0, ""
        if of_images:
            falls = torch.tensor(of_images).double() - torch.tensor(of_others).double()
            error = _STANDARD_ERRORS * float(falls.std()) / len(falls) ** 0.5
            beyond = f", by more than {error:.2g} ({_STANDARD_ERRORS:.0f} standard errors)"
        found.append(
            Canary(
                metric=name,
                check=check,
                expected=f"must be below {right:.4g}, that of real images{beyond}",
                value=value,
                passed=right - value > error,
            )
        )
    return found


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
