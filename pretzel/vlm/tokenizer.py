"""Word pieces of the tiny vision-language model.

Run as a command, it trains the vocabulary on the texts of shards::

    python -m pretzel.vlm.tokenizer tokenizer.json SHARD.tar.gz ...
"""

from collections.abc import Iterable, Sequence
from typing import Self

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pretzel.vlm.base import SpecialTokens

PAD, BEGIN_OF_IMAGE, END_OF_IMAGE, END_OF_TEXT = "<pad>", "<image>", "</image>", "<end>"
UNKNOWN = "<unknown>"
SPECIAL = [PAD, BEGIN_OF_IMAGE, END_OF_IMAGE, END_OF_TEXT, UNKNOWN]
ALPHABET = list("abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()&+-#")


class WordPieces:
    """A lower-case WordPiece tokenizer whose special tokens no user's text can spell.

    Args:
        serialized: The tokenizer as JSON (the format of the ``tokenizers`` library).
    """

    def __init__(self, serialized: str) -> None:
        self._tokenizer = Tokenizer.from_str(serialized)
        # "<image>" typed in a caption is punctuation and a word, not the beginning of an image
        self._tokenizer.encode_special_tokens = True
        ids = [self._tokenizer.token_to_id(token) for token in SPECIAL]
        assert None not in ids, f"the tokenizer lacks one of {SPECIAL}"
        self._special_ids = frozenset(ids)
        self.special = SpecialTokens(
            pad=ids[0], begin_of_image=ids[1], end_of_image=ids[2], end_of_text=ids[3]
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn a vocabulary; equal texts give equal vocabularies, in any order of the texts.

        Args:
            texts: Captions, questions and answers, with repetitions: frequent words stay whole.
            vocab_size: Most tokens, special ones and the alphabet included.
        """
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=SPECIAL,
            initial_alphabet=ALPHABET,
            limit_alphabet=len(ALPHABET),
            show_progress=False,
        )
        tokenizer.train_from_iterator(sorted(texts), trainer)
        return cls(tokenizer.to_str())

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self._tokenizer.get_vocab_size()

    def serialize(self) -> str:
        """Return the tokenizer as JSON."""
        return self._tokenizer.to_str(pretty=True) + "\n"

    def encode(self, text: str) -> list[int]:
        """Return token ids of ``text``, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self._tokenizer.decode([i for i in tokens if i not in self._special_ids])
