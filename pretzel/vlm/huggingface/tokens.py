"""Which tokens of a Hugging Face model mean what."""

from collections.abc import Mapping
from typing import Any

from pretzel.errors import UserError
from pretzel.sequence.special_tokens import SpecialTokens
from pretzel.vlm.huggingface.families import Family

ROLES = ("begin_of_image", "end_of_image", "end_of_text", "pad")


def special_tokens(
    given: Mapping[str, str | None],
    family: Family,
    config: Any,  # noqa: ANN401
    vocab_size: int,
    tokenizer: Any | None,  # noqa: ANN401
) -> SpecialTokens:
    """Return ids; those from ``vocab_size`` on stand for tokens that the vocabulary lacks.

    Args:
        given: The user's token strings by role; None where the family's, or new ones, will do.
        family: Family of the model.
        config: Its configuration.
        vocab_size: Rows of its embedding.
        tokenizer: Its tokenizer; None to go by the configuration alone.

    Raises:
        UserError: If the tokenizer does not know a string or a text can spell it, or two roles
            share a token.
    """

    def known(token_id: object) -> int | None:
        """Return an id, the first of several, if the embedding has it."""
        first = token_id[0] if isinstance(token_id, list) and token_id else token_id
        return first if isinstance(first, int) and 0 <= first < vocab_size else None

    vocabulary: Mapping[str, int] = {} if tokenizer is None else tokenizer.get_vocab()
    text = config.get_text_config()
    of_configuration = {
        "begin_of_image": None,
        "end_of_image": None,
        "end_of_text": getattr(text, "eos_token_id", None),
        "pad": getattr(text, "pad_token_id", None),
    } | {role: getattr(config, name, None) for role, name in family.special_ids.items()}
    of_tokenizer = {} if tokenizer is None else {
        "end_of_text": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
    }  # fmt: skip

    ids: dict[str, int] = {}
    for role in ROLES:
        token = given[role]
        if token is not None:
            found = known(vocabulary.get(token))
            if found is None:
                raise UserError(f"{role} must be a token that the tokenizer knows, got {token!r}")
            if _can_be_spelled(token, found, tokenizer):
                raise UserError(
                    f"{role} must be a special token of the tokenizer, which no text can spell, "
                    f"got {token!r}"
                )
            ids[role] = found
            continue
        choices = (
            vocabulary.get(family.special.get(role, "")),
            of_tokenizer.get(role),
            of_configuration[role] if tokenizer is None else None,
        )
        found = next((choice for choice in map(known, choices) if choice is not None), None)
        if found is not None:
            ids[role] = found
    new = vocab_size
    for role in ROLES[:3]:
        if role not in ids:
            ids[role], new = new, new + 1
    ids.setdefault("pad", ids["end_of_text"])  # never attended
    for one, other in (ROLES[:2], ROLES[1:3], (ROLES[0], ROLES[2])):
        if ids[one] == ids[other]:
            raise UserError(f"{one} and {other} must be different tokens, got {ids[one]} for both")
    return SpecialTokens(
        pad=ids["pad"],
        begin_of_image=ids["begin_of_image"],
        end_of_image=ids["end_of_image"],
        end_of_text=ids["end_of_text"],
    )


def _can_be_spelled(token: str, token_id: int, tokenizer: Any) -> bool:  # noqa: ANN401
    """Tell whether a token is an ordinary one, or one that a text is split into all the same."""
    added = tokenizer.added_tokens_decoder
    special = {number for number, entry in added.items() if entry.special}
    is_special = token_id in special.union(tokenizer.all_special_ids)
    spelled: list[int] = tokenizer(token, add_special_tokens=False)["input_ids"]
    return not is_special or token_id in spelled
