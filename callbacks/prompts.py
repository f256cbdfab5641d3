"""Prompts of generated images: those that were given, of metrics, or captions of samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from callbacks.generation_metric import GenerationMetric, TruthMetric
from callbacks.protocols import HasTruth, SampleTexts
from callbacks.reporting import evenly
from pretzel.errors import UserError
from pretzel.sequence.document import Truth

_BESIDE = ": those of a folder of pictures stand in prompts.json, or in name.txt beside name.png"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt of an image.

    Attributes:
        text: The prompt.
        truth: Ground truth of the sample whose caption it is; empty where no metric asks for it.
    """

    text: str
    truth: Truth = field(default_factory=dict)


def prompt_of(sample: SampleTexts, metrics: Sequence[GenerationMetric]) -> Prompt | None:
    """Return the caption of a sample with its ground truth, None if a metric cannot judge it."""
    if not sample.caption or not all(metric.accepts(sample.caption) for metric in metrics):
        return None
    asking = [metric for metric in metrics if isinstance(metric, TruthMetric)]
    if not asking:
        return Prompt(text=sample.caption)
    truth: Truth = sample.truth if isinstance(sample, HasTruth) else {}
    if not all(metric.accepts_truth(truth) for metric in asking):
        return None
    return Prompt(text=sample.caption, truth=truth)


def update(
    metric: GenerationMetric, images: Float[Tensor, "n ..."], prompts: Sequence[Prompt]
) -> None:
    """Let a metric take in images, with the ground truth of their prompts if it asks for that."""
    texts = [prompt.text for prompt in prompts]
    if isinstance(metric, TruthMetric):
        metric.update_with_truth(images, texts, [prompt.truth for prompt in prompts])
    else:
        metric.update(images, texts)


def own_prompts(metrics: Sequence[GenerationMetric], limit: int) -> list[str]:
    """Return the prompts that metrics have of their own, spread evenly if there are more.

    Raises:
        UserError: If they differ, or a metric cannot judge one.
    """
    own = [(metric, prompts) for metric in metrics if (prompts := metric.own_prompts())]
    if not own:
        return []
    for metric, prompts in own[1:]:
        if prompts != own[0][1]:
            names = f"{type(own[0][0]).__name__} and {type(metric).__name__}"
            raise UserError(
                "Generation: metrics must have the same prompts of their own: give "
                f"{names} a Generation each"
            )
    check_prompts(metrics, own[0][1])
    return evenly(own[0][1], limit)


def check_prompts(metrics: Sequence[GenerationMetric], prompts: Sequence[str]) -> None:
    """Refuse prompts that a metric cannot judge.

    Raises:
        UserError: With the first one.
    """
    for metric in metrics:
        for place, prompt in enumerate(prompts):
            if not metric.accepts(prompt):
                mend = "" if prompt.strip() else _BESIDE
                raise UserError(
                    f"Generation: {type(metric).__name__} cannot judge the prompt {prompt!r}, "
                    f"that of image {place}{mend}"
                )


def with_truth(
    texts: Sequence[str],
    metrics: Sequence[GenerationMetric],
    samples: Iterable[SampleTexts],
) -> list[Prompt]:
    """Return given prompts, each with the ground truth of the first sample of that caption.

    Args:
        texts: The prompts.
        metrics: The metrics; samples are read only where one asks for their ground truth.
        samples: The samples.

    Raises:
        UserError: If a metric asks for it, and no sample that it can judge has the caption.
    """
    asking = [metric for metric in metrics if isinstance(metric, TruthMetric)]
    if not asking:
        return [Prompt(text=text) for text in texts]
    missing, found = set(texts), dict[str, Prompt]()
    for sample in samples:
        if not missing:
            break
        if sample.caption in missing and (prompt := prompt_of(sample, metrics)) is not None:
            found[sample.caption] = prompt
            missing.remove(sample.caption)
    if missing:
        first = next(text for text in texts if text in missing)
        raise UserError(
            f"Generation: {type(asking[0]).__name__} needs the ground truth of a sample whose "
            f"caption is the prompt, but of {first!r} the evaluated split has none"
        )
    return [found[text] for text in texts]
