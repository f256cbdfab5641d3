r"""The normalisation of answers with which VQAv2 is scored (Goyal et al. 2017).

The published rules (https://visualqa.org/evaluation.html): lower case, no periods but in decimals,
number words as digits, no articles, contractions with their apostrophe, all other punctuation than
apostrophes and colons a space, and nothing for a comma between digits. Where the published code
(GT-Vision-Lab/VQA, ``vqaEval.py``) goes further, it is followed:

* punctuation beside a space anywhere in the answer is removed, not made a space; so is all
  punctuation of an answer that has a comma between two digits anywhere;
* a period goes unless a digit follows, so ``5.`` and ``.a`` lose it and ``.5`` does not;
* ``none`` is the number 0; an article alone is an empty answer;
* contractions with two apostrophes are mended where one is missing, not where both are;
  ``somebody'd`` loses its own, and ``let's``, ``she's`` and those of ``I`` are never mended.

It is not followed in three things. It compares answers as they are where all ten people wrote the
same, so that ``Yes`` is wrong against ten times ``yes``; here they are always normalised, as the
rules say. It forgets periods beyond the 32nd. It strips newlines and tabs alone, here all space.
"""

import re
from functools import lru_cache

_REMOVED = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_BETWEEN_DIGITS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_ENDINGS = {
    "n't": (
        "ai are ca could did does do had has have is might must need ought sha should was were wo "
        "would"
    ),
    "n't've": "could had might should would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who you",
    "'s": "he how somebody someone that there what when where who why",
    "'ll": "how it somebody someone something they what who why you",
    "'re": "there they what why you",
    "'all": "y",
    "'all'll": "y",
    "'all'd've": "y",
    "'am": "ma",
    "'clock": "o",
}
"""Contractions by what they end in."""


def _without_one_apostrophe() -> dict[str, str]:
    """Return contractions by what is left of them when one of their apostrophes is missing."""
    whole = [start + end for end, starts in _ENDINGS.items() for start in starts.split()]
    return {
        word[:place] + word[place + 1 :]: word
        for word in [*whole, "'twas", "'ow's'at"]
        for place, letter in enumerate(word)
        if letter == "'"
    } | {"somebody'd": "somebodyd"}


_CONTRACTIONS = _without_one_apostrophe()


@lru_cache(maxsize=2**16)
def normalise(answer: str) -> str:
    """Return an answer as it is compared with others."""
    text = " ".join(answer.split())
    is_number = _COMMA_BETWEEN_DIGITS.search(text) is not None
    bare = text
    for mark in _REMOVED:
        is_beside_space = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if is_number or is_beside_space else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", bare).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
