"""CIDEr-D of descriptions of images (Vedantam et al. 2015, arXiv 1411.5726)."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

_LONGEST = 4  # words of an n-gram
_SIGMA = 6.0  # of the penalty on other lengths
_SCALE = 10.0

Grams = Counter[tuple[str, ...]]


def cider_d(
    descriptions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    r"""Return CIDEr-D of each description.

    Of n-grams of 1 to 4 words, with counts weighted by the logarithm of the number of images over
    that of images of which a reference has the n-gram:
    ``10 mean_n mean_r min(g_n(c), g_n(r)) . g_n(r) / (|g_n(c)| |g_n(r)|) exp(-(l_c - l_r)^2 / 72)``
    (equations 2 to 5 and section 5). As in COCO's published code counts are not divided by the
    length, and the length is the number of pairs of neighbouring words.

    Args:
        descriptions: Words of the description of each image.
        references: Words of each of its references, at least one.
    """
    known = [[_grams(one) for one in of_image] for of_image in references]
    frequency = Counter(gram for of_image in known for gram in set().union(*of_image))
    total = math.log(max(len(known), 1))

    def weighted(grams: Grams, n: int) -> dict[tuple[str, ...], float]:
        return {
            gram: count * (total - math.log(max(frequency[gram], 1)))
            for gram, count in grams.items()
            if len(gram) == n
        }

    def similarity(description: Grams, reference: Grams) -> float:
        difference = _num_pairs(description) - _num_pairs(reference)
        cosines = []
        for n in range(1, _LONGEST + 1):
            own, other = weighted(description, n), weighted(reference, n)
            shared = sum(min(own[gram], other[gram]) * other[gram] for gram in own.keys() & other)
            norms = math.hypot(*own.values()) * math.hypot(*other.values())
            cosines.append(shared / norms if norms else 0.0)
        return _mean(cosines) * math.exp(-(difference**2) / (2 * _SIGMA**2))

    return [
        _SCALE * _mean(similarity(_grams(words), reference) for reference in of_image)
        for words, of_image in zip(descriptions, known, strict=True)
    ]


def _grams(words: Sequence[str]) -> Grams:
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, _LONGEST + 1)
        for start in range(len(words) - n + 1)
    )


def _num_pairs(grams: Grams) -> int:
    return sum(count for gram, count in grams.items() if len(gram) == 2)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return math.fsum(kept) / len(kept)
