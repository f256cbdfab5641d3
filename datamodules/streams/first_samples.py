"""Looks at the first samples of a split, so that what is wrong with all of them is said at once."""

from collections import Counter
from itertools import chain, islice, repeat

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.decoding.decoder import SampleDecoder
from datamodules.decoding.excerpt import excerpt
from datamodules.reading.opening import is_pipe
from datamodules.reading.tar_shard import RawSample
from datamodules.recipes.recipe import Mixture, Recipe
from datamodules.sample import AnySample, Sample, Skipped, Unusable
from datamodules.sources.source import DataSource, Split
from datamodules.streams.eval_stream import evaluated
from datamodules.streams.skip_log import examples, listed
from pretzel.errors import UserError
from pretzel.rng import stream

NUM_FIRST = 100
"""Number of samples that are looked at, at most: as soon as one can serve, all is well."""


def check_first_samples(
    source: DataSource, decoder: SampleDecoder, split: Split, recipe: Recipe | None = None
) -> None:
    """Refuse a split of whose first samples none can serve.

    Warns of a recipe of a mixture that accepts none of them. A split without shards is right, and
    a command (``pipe:``) is run once it is needed, not to look at what it says.

    Args:
        source: Source of the samples.
        decoder: Decoder of the samples.
        split: ``train``, ``val`` or ``test``.
        recipe: Recipe of the training samples; None where they are evaluated.

    Raises:
        UserError: If none can serve, saying why not, or there is no sample.
    """
    shards = source.shards(split)
    if not shards or is_pipe(shards[0]):
        return
    faults: dict[str, Skipped] = {}  # the first of each reason
    reasons: Counter[str] = Counter()
    hint = ""
    waiting = [] if recipe is None else _parts(recipe)
    is_usable, number = False, 0
    raws = chain.from_iterable(source.read(shard) for shard in shards)
    for number, raw in enumerate(islice(raws, NUM_FIRST), start=1):  # noqa: B007
        sample = _looked_at(raw, decoder, recipe, images=not is_usable)
        if not isinstance(sample, Skipped):
            is_usable = True
            waiting = [part for part in waiting if not part.accepts(sample)]
            if not waiting:
                return
            continue
        faults.setdefault(sample.reason, sample)
        reasons[sample.reason] += 1
        if not hint and "a caption" in str(sample) and isinstance(raw, RawSample):
            hint = _caption_hint(raw, decoder)
    if not is_usable:
        if not number:
            raise UserError(f"the {split} shards hold no sample")
        raise UserError(
            f"none of the first {number} {split} samples can serve: {listed(reasons)}; such as "
            f"{examples(list(faults.values()))}{hint}"
        )
    names = ", ".join(type(part).__name__ for part in waiting)
    rank_zero_warn(
        f"none of the first {number} {split} samples is one for {names} of the recipe Mixture"
    )


def _caption_hint(raw: RawSample, decoder: SampleDecoder) -> str:
    """Return where captions are read from, and where they may be instead."""
    return (
        f"; captions are read from key.txt or caption_field={decoder.caption_field!r}, the fields "
        f"of {raw.key}.json are {excerpt(list(decoder.fields(raw)))}"
    )


def _looked_at(
    raw: RawSample | Skipped, decoder: SampleDecoder, recipe: Recipe | None, *, images: bool
) -> AnySample | Skipped:
    """Return a sample decoded, or why it cannot serve; images are left out where texts suffice."""
    if isinstance(raw, Skipped):
        return raw
    texts_suffice = not images and not decoder.is_document(raw)
    sample = decoder.texts(raw) if texts_suffice else decoder(raw)
    if isinstance(sample, Skipped):
        return sample
    try:
        if recipe is None:
            if isinstance(sample, Sample):
                evaluated(sample)
            return sample
        recipe.check(sample)
        if images:
            recipe.draw(sample, repeat(sample), stream(0, "check"))
    except Unusable as fault:
        return fault.skipped(raw.shard, raw.key)
    return sample


def _parts(recipe: Recipe) -> list[Recipe]:
    if isinstance(recipe, Mixture):
        return [part for one in recipe.recipes for part in _parts(one)]
    return [recipe]
