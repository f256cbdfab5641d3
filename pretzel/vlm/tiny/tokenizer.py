"""Word pieces of the tiny vision-language model.

Run as a command, it learns the vocabulary from the captions, questions and answers of shards::

    python -m pretzel.vlm.tiny.tokenizer tokenizer.json datamodules/data/*/train-*.tar.gz
"""

import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
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
SHIPPED_TOKENIZER = Path(__file__).with_name("tokenizer.json")


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
        frequent words stay whole. ``vocab_size`` includes special tokens and the alphabet.
        """
        normalizer = normalizers.BertNormalizer(lowercase=True)
        splitter = pre_tokenizers.BertPreTokenizer()
        words: Counter[str] = Counter()
        for text, count in Counter(texts).items():
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
                words[word] += count
        pieces = [*SPECIAL, *PUNCTUATION, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
        pieces += _merges(words, vocab_size - len(pieces))
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


def shard_texts(shards: Iterable[Path]) -> Iterator[str]:
    """Yield captions, questions and answers (``*.json``) of shards that must be readable."""
    for shard in shards:
        try:
            with tarfile.open(shard) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.name.endswith(".json") else None
                    if file is None:
                        continue
                    annotation = json.load(file)
                    yield annotation["caption"]
                    for question, answer in annotation.get("questions", []):
                        yield question
                        yield answer
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"cannot read shard {shard}: {error}") from error


def main(args: Sequence[str]) -> None:
    """Learn a vocabulary: ``OUTPUT SHARD...``."""
    output, *shards = map(Path, args)
    output.write_text(WordPieces.train(shard_texts(shards)).serialize(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
