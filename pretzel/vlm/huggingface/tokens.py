"""Special tokens of a Hugging Face model: where images and texts begin and end."""

from collections.abc import Mapping

from pretzel.errors import UserError
from pretzel.sequence.special_tokens import SpecialTokens
from pretzel.vlm.huggingface.families import Family
from pretzel.vlm.huggingface.untyped import Config, TextTokenizer

ROLES = ("begin_of_image", "end_of_image", "end_of_text", "pad")


def special_tokens(
    token_strings: Mapping[str, str | None],
    family: Family,
    config: Config,
    vocab_size: int,
    tokenizer: TextTokenizer | None,
) -> SpecialTokens:
    """Return ids; those from ``vocab_size`` on stand for tokens that the vocabulary lacks.

    Where the user names no token, the family's or a new one will do; without a tokenizer the
    defaults are the configuration's.

    Raises:
        UserError: If the tokenizer does not know a string or a text can spell it, or two roles
            share a token.
    """

    def valid(token_id: object) -> int | None:
        """Return an id, the first of several, if the embedding has a row for it."""
        first = token_id[0] if isinstance(token_id, list) and token_id else token_id
        return first if isinstance(first, int) and 0 <= first < vocab_size else None

    vocabulary: Mapping[str, int] = {}
    if tokenizer is None:
        text = config.get_text_config()
        defaults = {
            "end_of_text": getattr(text, "eos_token_id", None),
            "pad": getattr(text, "pad_token_id", None),
        } | {role: getattr(config, name, None) for role, name in family.special_ids.items()}
    else:
        vocabulary = tokenizer.get_vocab()
        defaults = {"end_of_text": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}

    ids: dict[str, int] = {}
    for role in ROLES:
        token = token_strings[role]
        if token is None:
            token_id = valid(vocabulary.get(family.special.get(role, "")))
            token_id = valid(defaults.get(role)) if token_id is None else token_id
        else:
            token_id = valid(vocabulary.get(token))
            if token_id is None:
                raise UserError(f"{role} must be a token that the tokenizer knows, got {token!r}")
            # A text of a user's that spells it would end a caption or begin an image
            if _can_be_spelled(token, token_id, tokenizer):
                raise UserError(
                    f"{role} must be a special token of the tokenizer, which no text can spell, "
                    f"got {token!r}"
                )
        if token_id is not None:
            ids[role] = token_id
    new = vocab_size
    for role in ROLES[:3]:
        if role not in ids:
            ids[role], new = new, new + 1
    ids.setdefault("pad", ids["end_of_text"])  # never attended
    for one, other in (ROLES[:2], ROLES[1:3], (ROLES[0], ROLES[2])):
        if ids[one] == ids[other]:
            raise UserError(f"{one} and {other} must be different tokens, got {ids[one]} for both")
    return SpecialTokens(**ids)


def _can_be_spelled(token: str, token_id: int, tokenizer: TextTokenizer) -> bool:
    """Tell whether a token is an ordinary one, or one that a text is split into all the same."""
    added = tokenizer.added_tokens_decoder
    special = {number for number, entry in added.items() if entry.special}
    is_special = token_id in special.union(tokenizer.all_special_ids)
    spelled: list[int] = tokenizer(token, add_special_tokens=False)["input_ids"]
    return not is_special or token_id in spelled
