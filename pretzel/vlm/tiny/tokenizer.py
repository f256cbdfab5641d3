"""Word pieces of the tiny vision-language model; ``pretzel data tokenizer`` learns others."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pretzel.errors import UserError
from pretzel.sequence.special_tokens import SpecialTokens

PAD, BEGIN_OF_IMAGE, END_OF_IMAGE, END_OF_TEXT = "<pad>", "<image>", "</image>", "<end>"
UNKNOWN = "<unknown>"
SPECIAL = (PAD, BEGIN_OF_IMAGE, END_OF_IMAGE, END_OF_TEXT, UNKNOWN)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PUNCTUATION = ".,:;!?'\"()&+-#"
VOCAB_SIZE = 512
_MOST_WORDS = 30_000
_TEXTS_AT_A_TIME = 100_000
SHIPPED_TOKENIZER = Path(__file__).with_name("easy_vqa.tokenizer.json")


class WordPieces:
    """A lower-case WordPiece tokenizer whose special tokens no user's text can spell.

    It is given as JSON, in the format of the ``tokenizers`` library.
    """

    def __init__(self, serialized: str) -> None:
        self._tokenizer = Tokenizer.from_str(serialized)
        vocabulary = self._tokenizer.get_vocab()
        self.special = SpecialTokens(
            pad=vocabulary[PAD],
            begin_of_image=vocabulary[BEGIN_OF_IMAGE],
            end_of_image=vocabulary[END_OF_IMAGE],
            end_of_text=vocabulary[END_OF_TEXT],
        )
        self._special_ids = frozenset(vocabulary[token] for token in SPECIAL)
        self.vocab_size = len(vocabulary)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> "WordPieces":
        """Learn a vocabulary by merging the most frequent pair again and again.

        The trainers of the ``tokenizers`` library order ties by a randomly seeded hash; here
        equal texts give equal vocabularies, in any order and on any machine. Repetitions count:
        frequent words stay whole. Of more than 30,000 different words the most frequent count.

        Args:
            texts: The texts; few are held at a time.
            vocab_size: Pieces, special tokens and the alphabet included.

        Raises:
            UserError: If it is too small for these.
        """
        pieces = [*SPECIAL, *PUNCTUATION, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
        if vocab_size < len(pieces):
            raise UserError(
                f"vocab_size must be at least {len(pieces)}, special tokens and letters, got "
                f"{vocab_size}"
            )
        normalizer = normalizers.BertNormalizer(lowercase=True)
        splitter = pre_tokenizers.BertPreTokenizer()
        words: Counter[str] = Counter()
        remaining = iter(texts)
        while some := Counter(islice(remaining, _TEXTS_AT_A_TIME)):
            for text, count in some.items():
                for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
                    words[word] += count
        pieces += _merges(_most_frequent(words), vocab_size - len(pieces))
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = splitter
        tokenizer.decoder = decoders.WordPiece()
        return cls(tokenizer.to_str())

    def serialize(self) -> str:
        """Return the tokenizer as JSON."""
        return self._tokenizer.to_str(pretty=True) + "\n"

    def encode(self, text: str) -> list[int]:
        """Return token ids of ``text``; "<image>" typed in it is punctuation and a word."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self._tokenizer.decode([i for i in tokens if i not in self._special_ids])


def _most_frequent(words: Counter[str]) -> Counter[str]:
    """Return the words that count; of equally frequent ones the first of the alphabet."""
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return Counter(dict(ordered[:_MOST_WORDS]))


def _merges(words: Counter[str], count: int) -> list[str]:
    """Return the first ``count`` merged pieces, in order; ties go to the alphabet."""
    split = {
        word: [word[0], *(f"##{letter}" for letter in word[1:])]
        for word in sorted(words)
        if set(word) <= set(LETTERS)
    }
    pieces: list[str] = []
    while len(pieces) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = left + right.removeprefix("##")
        if merged not in pieces:
            pieces.append(merged)
        for parts in split.values():
            position = 0
            while position < len(parts) - 1:
                if (parts[position], parts[position + 1]) == (left, right):
                    parts[position : position + 2] = [merged]
                position += 1
    return pieces
