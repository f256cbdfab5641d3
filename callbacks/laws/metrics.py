"""The laws of metrics of generated images."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from callbacks.generation_metric import GenerationMetric, ReferenceMetric, TruthMetric
from callbacks.prompts import Prompt, update
from pretzel.rng import stream
from pretzel.testing.deviation import Deviation, check, require, unmeasured, within
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import FP32, Case

IMAGES, SIZE = 8, 32
PROMPTS = tuple(
    f"a {colour} {shape}"
    for colour in ("red", "blue", "green", "black")
    for shape in ("circle", "triangle")
)
"""Prompts that every metric accepts, one an image; a TruthMetric has an example of its own."""


def images(key: str = "generated") -> Float[Tensor, "n 3 height width"]:
    """Return images in [-1, 1], different from one another."""
    noise = torch.randn(IMAGES, 3, SIZE, SIZE, generator=stream("laws", key))
    shade = torch.linspace(-1, 1, IMAGES)[:, None, None, None]
    return (noise + shade).tanh()


def prompts(metric: GenerationMetric) -> list[Prompt]:
    """Return one prompt an image, with its ground truth if the metric asks for it."""
    if isinstance(metric, TruthMetric):
        text, truth = metric.example()
        return [Prompt(text=text, truth=truth)] * IMAGES
    return [Prompt(text=text) for text in PROMPTS]


def prepared(case: Case[GenerationMetric]) -> GenerationMetric:
    """Return a metric that is ready for generated images; real ones are there if it wants them."""
    metric = case.build()
    metric.prepare(torch.device("cpu"))
    metric.reset()
    if isinstance(metric, ReferenceMetric):
        metric.reset_real()
        metric.update_real(images("real"))
    return metric


def measured(metric: GenerationMetric, *sizes: int) -> dict[str, float]:
    """Return what a metric says of the images in batches of some sizes."""
    metric.reset()
    first = 0
    for size in sizes:
        rows = slice(first, first + size)
        update(metric, images()[rows], prompts(metric)[rows])
        first += size
    return metric.compute()


def compare(actual: dict[str, float], expected: dict[str, float], what: str) -> Deviation:
    """Compare values by name."""
    require(actual.keys() == expected.keys(), f"{what}: {sorted(actual)}, not {sorted(expected)}")
    values = [torch.tensor(list(v.values()), dtype=torch.float64) for v in (actual, expected)]
    return within(values[0], values[1], FP32, f"{what} of {', '.join(expected)}")


def batches_do_not_matter(case: Case[GenerationMetric]) -> Deviation:
    """The values depend on how images were divided into batches."""
    metric = prepared(case)
    return compare(measured(metric, 3, 4, 1), measured(metric, IMAGES), "values in batches")


def resetting_forgets(case: Case[GenerationMetric]) -> Deviation:
    """Images of an earlier evaluation, or computing twice, change the values."""
    metric = prepared(case)
    expected = measured(metric, IMAGES)
    again = metric.compute()
    metric.reset()
    update(metric, images("earlier"), prompts(metric))
    metric.prepare(torch.device("cpu"))
    repeated = compare(again, expected, "values computed twice")
    return max(
        repeated,
        compare(measured(metric, IMAGES), expected, "values behind another evaluation"),
        key=lambda deviation: deviation.error,
    )


def values_say_how_many_images_they_are_from(case: Case[GenerationMetric]) -> Deviation:
    """A value is not a finite number, or none of them is the number of images."""
    values = measured(prepared(case), IMAGES)
    for name, value in values.items():
        finite = isinstance(value, float) and math.isfinite(value)
        require(finite, f"{name} must be a finite float, got {value!r}")
    counts = [name for name, value in values.items() if name.endswith("_n") and value == IMAGES]
    require(bool(counts), f"none of {sorted(values)} is the number of images, {IMAGES}")
    return unmeasured("values and their number of images")


def scores_of_images_have_the_values_as_means(case: Case[GenerationMetric]) -> Deviation:
    """Scores of single images are not one an image, or their mean is not the value."""
    metric = prepared(case)
    values, scores = measured(metric, IMAGES), metric.image_scores()
    counts = {name: len(own) for name, own in scores.items() if len(own) != IMAGES}
    require(not counts, f"scores must be one an image, {IMAGES}, got {counts}")
    means = {name: sum(own) / IMAGES for name, own in scores.items()}
    if not means:
        return unmeasured("without scores of single images")
    return compare(means, {name: values[name] for name in scores}, "means of scores")


def measuring_touches_nothing(case: Case[GenerationMetric]) -> Deviation:
    """Measuring draws random numbers that training would have drawn, or writes into the images."""
    metric = prepared(case)
    generated = images()
    with untouched("measuring"):
        metric.reset()
        update(metric, generated, prompts(metric))
        metric.compute()
    return check(within(generated, images(), 0.0, "images afterwards"))


def it_says_what_it_measures(case: Case[GenerationMetric]) -> Deviation:
    """The description is not one line, or facts are stated of a value that there is not."""
    metric = prepared(case)
    values = measured(metric, IMAGES)
    description = metric.describe()
    one_line = bool(description.strip()) and "\n" not in description
    require(one_line, f"describe() must be one line, got {description!r}")
    unknown = sorted(metric.facts().keys() - values.keys())
    require(not unknown, f"facts are stated of {unknown}, values are {sorted(values)}")
    return unmeasured("description")


def equal_images_are_nearest(case: Case[GenerationMetric]) -> Deviation:
    """Where real images are compared with, others than the real ones themselves are nearer."""
    metric = prepared(case)
    if not isinstance(metric, ReferenceMetric):
        return unmeasured("without reference")
    metric.update((images() + 3).tanh(), PROMPTS)  # nearly white
    name, other = next(iter(metric.compute().items()))
    metric.reset()
    metric.update(images("real"), PROMPTS)
    same = metric.compute()[name]
    nearer = same > other if metric.higher_is_better else same < other
    require(nearer, f"{name} is {same:.3g} of the real images, {other:.3g} of others")
    return unmeasured("equal images are nearest")
