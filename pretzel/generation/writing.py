"""Text, token by token: the likeliest, or drawn at a temperature from a nucleus."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from pretzel.errors import UserError
from pretzel.generation.state import GenerationState
from pretzel.model import Pretzel
from pretzel.rng import stream
from pretzel.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How text is written.

    Attributes:
        temperature: Divides the logits; 0 for the likeliest token, always.
        top_p: Least probability that the nucleus holds: tokens are drawn from the fewest, the
            likeliest, that have it together (nucleus sampling, arXiv 1904.09751).

    Raises:
        UserError: If a number is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be 0 or positive, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def choose(
        self, logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"] | None = None
    ) -> Int[Tensor, " b"]:
        """Return a token for each row, of logits that are -inf where it is ruled out.

        ``uniform`` are random numbers in [0, 1), not needed at temperature 0.

        Raises:
            UserError: If the logits of a row are not numbers, or leave no token.
        """
        largest, likeliest = logits.max(dim=-1)  # NaN where there is one
        if not largest.isfinite().all():
            row = int((~largest.isfinite()).nonzero()[0, 0])
            raise UserError(
                f"logits of the next token must have a finite maximum, got {largest[row].item()} "
                f"in row {row}: the weights, or the precision they run in, are broken"
            )
        if self.is_greedy:
            return likeliest
        assert uniform is not None
        probabilities, tokens = self._sorted(logits)
        cumulative = probabilities.cumsum(dim=-1)
        threshold = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
        # The first whose cumulative probability lies above; rounding must not lead past the last
        # token that has any.
        place = (cumulative <= threshold).sum(dim=-1, keepdim=True)
        last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
        return tokens.gather(-1, torch.minimum(place, last))[:, 0]

    def _sorted(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities, the largest first, 0 outside the nucleus, and their tokens."""
        ordered, tokens = logits.sort(dim=-1, descending=True, stable=True)
        shifted = ordered.double() - ordered[:, :1].double()
        # Shifted before it is divided, by what is no subnormal number: the likeliest stays at 0,
        # and no temperature overflows.
        probabilities = (shifted / max(self.temperature, 1e-300)).softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        is_outside = before >= self.top_p
        is_outside[:, 0] = False
        return probabilities.masked_fill(is_outside, 0.0), tokens


GREEDY = Writing()


def write_tokens(
    state: GenerationState,
    max_tokens: int,
    writing: Writing = GREEDY,
    *,
    keys: Sequence[str] | None = None,
    seed: int = 0,
    may_begin_image: bool = False,
) -> Iterator[Int[Tensor, " b"]]:
    """Write text, a token for each row at a time.

    A row stops at end-of-text, or at begin-of-image where an image may be begun, which is left to
    whoever generates it; what follows there is padding. Nothing is run beyond ``max_tokens`` of a
    row, the one that ends it included. Random numbers depend on the seed and the row's key (None
    for its number), not on the rows beside.

    Yields:
        The next token of each row; end-of-text in rows that have stopped.

    Raises:
        UserError: If the interleaving predicts no text, nothing stands before that of a row, it
            does not fit, or something else is read before the text has been written.
    """
    special = state.model.vlm.special
    require_answers(state.model)
    if max_tokens < 1:
        raise UserError(f"max_tokens must be at least 1, got {max_tokens}")
    number = state.begin_text()
    excluded = {special.pad, special.end_of_image} - {special.end_of_text}
    if not may_begin_image:
        excluded.add(special.begin_of_image)
    device = state.valid.device
    ruled_out = torch.tensor(sorted(excluded), device=device)
    names = keys if keys is not None else [str(row) for row in range(state.num_rows)]
    uniform = None if writing.is_greedy else _uniform(seed, names, number, max_tokens).to(device)
    done = torch.zeros(state.num_rows, dtype=torch.bool, device=device)
    for step in range(max_tokens):
        if len(state.segments) != number + 1:
            raise UserError("text must be written before anything is read behind it")
        logits = state.next_logits().index_fill(-1, ruled_out, -torch.inf)
        token = writing.choose(logits, None if uniform is None else uniform[:, step])
        token = torch.where(done, special.end_of_text, token)
        begins = ~done & may_begin_image & (token == special.begin_of_image)
        # The image brings its own begin-of-image, in one column for all rows.
        state.append_tokens(token, ~done & ~begins)
        done = done | begins | (token == special.end_of_text)
        yield token
        if done.all():
            return


def end_text(state: GenerationState, is_ended: Bool[Tensor, " b"]) -> None:
    """Force end-of-text in rows whose text has been cut."""
    end = torch.full_like(is_ended, state.model.vlm.special.end_of_text, dtype=torch.long)
    state.append_tokens(end, ~is_ended)


def _uniform(seed: int, keys: Sequence[str], number: int, count: int) -> Float[Tensor, "b t"]:
    """Return random numbers that belong to the rows' names and the place in the sequence."""
    return torch.stack(
        [torch.rand(count, generator=stream(seed, "text", key, number), dtype=torch.float64)
         for key in keys]
    )  # fmt: skip


def require_answers(model: Pretzel) -> None:
    """Raise a UserError if the model writes no text, naming its interleaving."""
    if not model.interleaving.answers:
        raise UserError(
            "interleaving must be one that answers questions, got "
            f"{type(model.interleaving).__name__}"
        )
