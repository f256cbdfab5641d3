"""The words of captions, as CIDEr and BLEU count them."""

import re

TOKENS = "lower-cased words and clitics, without punctuation"
"""Says what :func:`caption_words` does, as a fact beside figures."""

_WORD = re.compile(r"\w+?(?=n't\b)|n't\b|'\w+|\w+(?:[-.]\w+)*")


def caption_words(caption: str) -> list[str]:
    """Return the words of a caption: ``A man's t-shirt.`` is a, man, 's, t-shirt.

    COCO's evaluation cuts captions with the Penn Treebank tokenizer, which needs Java, and drops
    punctuation. These words are the same for plain sentences; ``don't`` is do, n't in both.
    """
    return _WORD.findall(caption.lower().replace("\u2019", "'"))
