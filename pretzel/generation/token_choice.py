"""How the next token is chosen: the likeliest, or drawn at a temperature from a nucleus."""

import math
from dataclasses import dataclass

import torch

from pretzel.errors import UserError
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
        """Return a token for each row.

        Args:
            logits: Of the next token; -inf where it is ruled out.
            uniform: A uniform random number in [0, 1) for each row; not needed at temperature 0.

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

    def nucleus(self, logits: Float[Tensor, "b v"]) -> Bool[Tensor, "b v"]:
        """Return which tokens can be drawn."""
        probabilities, tokens = self._sorted(logits)
        return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, tokens, probabilities > 0)

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
