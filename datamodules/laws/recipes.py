"""The laws of recipes: what a document is made of follows from its place in the data alone."""

from collections.abc import Iterator
from itertools import cycle

import numpy as np

from datamodules.recipes.illustrated import Illustrated
from datamodules.recipes.recipe import Recipe
from datamodules.sample import REASONS, AnySample, InterleavedSample, Sample, Unusable
from pretzel.rng import stream
from pretzel.sequence.document import Image, Text
from pretzel.testing.deviation import Deviation, require, unmeasured
from pretzel.testing.global_state import untouched
from pretzel.testing.law_case import Case

PLACES = 12
"""Places of the training data at which each sample is tried."""


def samples() -> list[AnySample]:
    """Return images with caption, questions, both or neither, and interleaved documents."""
    numbers = np.random.Generator(np.random.PCG64(0))
    pictures = [numbers.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(8)]
    pairs = (("what color?", "red"), ("is it?", "yes"), ("why?", "no"))
    captioned = [
        Sample(key=f"sample {i}", pixels=pictures[i], caption=f"a shape {i}", questions=pairs)
        for i in range(4)
    ]
    interleaved = [
        InterleavedSample(
            key=f"document {i}",
            segments=(Text(content="one"), Image(), Text(content="two"), Image()),
            images=(pictures[4 + 2 * i], pictures[5 + 2 * i]),
        )
        for i in range(2)
    ]
    bare = Sample(key="bare", pixels=pictures[0], caption="")
    asked = Sample(key="asked", pixels=pictures[1], caption="", questions=pairs)
    described = Sample(key="described", pixels=pictures[2], caption="a shape")
    return [*captioned, bare, asked, described, *interleaved]


def accepted(recipe: Recipe) -> list[AnySample]:
    """Return the samples with which a document of a recipe can begin."""
    return [sample for sample in samples() if recipe.accepts(sample)]


def drawn(recipe: Recipe, sample: AnySample, place: int) -> tuple[Illustrated, ...]:
    """Return the documents at a place of the training data, other samples behind without end."""
    following: Iterator[AnySample] = cycle(accepted(recipe)[::-1])
    return recipe.draw(sample, following, stream("recipe", place))


def contents(documents: tuple[Illustrated, ...]) -> list[object]:
    """Return all that documents hold, to be compared."""
    return [(d.document, [pixels.tobytes() for pixels in d.pixels]) for d in documents]


def some_sample_is_accepted(case: Case[Recipe]) -> Deviation:
    """Neither captioned images with questions nor interleaved documents are accepted."""
    require(bool(accepted(case.build())), "no sample is accepted")
    return unmeasured("samples accepted")


def what_is_refused_is_never_drawn(case: Case[Recipe]) -> Deviation:
    """A sample that the recipe refuses becomes a document, or ends more than itself.

    It must be skipped: ``draw`` raises ``Unusable`` as ``check`` does, with one of the reasons.
    """
    recipe = case.build()
    for sample in samples():
        if recipe.accepts(sample):
            continue
        for place in range(PLACES):
            try:
                documents = drawn(recipe, sample, place)
            except Unusable as fault:
                require(fault.reason in REASONS, f"{fault.reason!r} is not one of the reasons")
            else:
                texts = [one.document.text for one in documents]
                require(False, f"{sample.key} is refused, but becomes {texts}")
    return unmeasured("refused samples")


def no_text_is_empty(case: Case[Recipe]) -> Deviation:
    """A document holds an empty text: a sample without what the recipe needs was accepted."""
    recipe = case.build()
    for sample in accepted(recipe):
        for place in range(PLACES):
            for illustrated in drawn(recipe, sample, place):
                for segment in illustrated.document.segments:
                    said = not isinstance(segment, Text) or bool(segment.content)
                    require(said, f"a document of {sample.key} holds an empty text")
    return unmeasured("texts")


def images_have_their_pixels(case: Case[Recipe]) -> Deviation:
    """A document has another number of images than of pictures, is empty or has no key."""
    recipe = case.build()
    for sample in accepted(recipe):
        for place in range(PLACES):
            documents = drawn(recipe, sample, place)
            require(bool(documents), f"no document of {sample.key}")
            for illustrated in documents:
                document = illustrated.document
                counts = f"{document.num_images} images, {len(illustrated.pixels)} pictures"
                fits = document.num_images == len(illustrated.pixels)
                require(fits, f"a document of {sample.key} has {counts}")
                require(bool(document.segments), f"a document of {sample.key} is empty")
                require(bool(document.key), f"a document of {sample.key} has no key")
    return unmeasured("images and pictures")


def choices_belong_to_the_place(case: Case[Recipe]) -> Deviation:
    """The documents of a place depend on more than the samples and the generator of this place.

    On the global random states, on what was drawn before, or on the instance: arms of one seed
    would then be trained on other documents, and a resumed run too.
    """
    recipe, other = case.build(), case.build(seed=1)
    for sample in accepted(recipe):
        with untouched("drawing a document"):
            first = [contents(drawn(recipe, sample, place)) for place in range(PLACES)]
        again, elsewhere = (
            [contents(drawn(part, sample, place)) for place in reversed(range(PLACES))]
            for part in (recipe, other)
        )
        for name, result in (("drawn again", again), ("of another instance", elsewhere)):
            result.reverse()
            differing = [p for p, (a, b) in enumerate(zip(first, result, strict=True)) if a != b]
            require(not differing, f"{sample.key}, {name}: others at places {differing}")
    return unmeasured("choices of a place")


def documents_tell_samples_apart(case: Case[Recipe]) -> Deviation:
    """Two samples give documents of one key: noise and results belong to it."""
    recipe = case.build()
    keys: dict[str, str] = {}
    for sample in accepted(recipe):
        key = drawn(recipe, sample, 0)[0].document.key
        require(key not in keys, f"{keys.get(key)} and {sample.key} give documents of key {key!r}")
        keys[key] = sample.key
    return unmeasured("keys of documents")


def samples_are_not_modified(case: Case[Recipe]) -> Deviation:
    """The recipe writes into the pictures of a sample, which stay in memory for the next epoch."""
    recipe = case.build()
    for sample in accepted(recipe):
        pictures = [sample.pixels] if isinstance(sample, Sample) else list(sample.images)
        before = [picture.copy() for picture in pictures]
        for place in range(PLACES):
            drawn(recipe, sample, place)
        same = all(np.array_equal(a, b) for a, b in zip(before, pictures, strict=True))
        require(same, f"the pictures of {sample.key} are changed")
    return unmeasured("pictures afterwards")
