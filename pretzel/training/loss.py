"""The loss of training: L = w L_NF + lambda L_NTP, and a penalty on the norm of latents."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pretzel.errors import NotApplicable, UserError
from pretzel.flow.precision import at_least_float32
from pretzel.latent.generative_model import LOG_2PI, GenerativeModel, Scores
from pretzel.model import Pretzel
from pretzel.typing import Tensor

GlobalMean = Callable[[Tensor], tuple[Tensor, float]]
"""Maps values [k] of this process to its share in their mean over the global batch, and count."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """L = w L_NF + lambda L_NTP + penalty * mean u^2, all means over the global batch.

    L_NF is the mean over all image dimensions of z^2/2 + log sigma - log|det J|, L_NTP the mean
    cross-entropy over all supervised tokens.

    Attributes:
        flow_weight: Weight w of L_NF; with 0 it has no gradient.
        text_weight: Weight lambda of L_NTP; with 0 it has no gradient.
        latent_norm_penalty: Weight of the mean square of u.

    Raises:
        UserError: If a weight is negative or not finite.
    """

    flow_weight: float
    text_weight: float
    latent_norm_penalty: float

    def __post_init__(self) -> None:
        for name in ("text_weight", "flow_weight", "latent_norm_penalty"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be 0 or positive, got {value}")

    def check(self, model: GenerativeModel) -> None:
        """Refuse a loss that is off for a model.

        Raises:
            UserError: If both losses are off.
            NotApplicable: If L_NF is off and the model has no L_NTP.
        """
        if self.flow_weight:
            return
        if not self.text_weight:
            raise UserError("flow_weight must be positive, got 0: text_weight is 0 too")
        if not model.answers:
            part = model.interleaving if isinstance(model, Pretzel) else model
            raise NotApplicable(
                f"flow_weight must be positive, got 0: {type(part).__name__} has no image-to-text, "
                "so this stage does not exist for it; the next one starts from the one before"
            )

    def __call__(
        self, output: Scores, dims: int, mean: GlobalMean
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, as far as the global batch has any.

        The scores are those of the rows of this process; an image has ``dims`` dimensions.
        """
        # L_NF leaves the constant log(2 pi)/2 of the Gaussian out: mean (z^2/2 + log sigma)
        # - log|det J| / dims (STARFlow, arXiv 2506.06276)
        nll = -output.log_prob / dims - 0.5 * LOG_2PI
        flow, num_images = mean(nll)
        text, num_tokens = mean(output.token_nll)
        loss = nll.new_zeros(())
        if self.flow_weight:  # without it there is no gradient to take, not even one of zeros
            loss = loss + self.flow_weight * flow
        if self.text_weight:
            loss = loss + self.text_weight * text
        parts: dict[str, Tensor] = {}
        if num_images:
            parts["nll_flow"] = flow
        if num_tokens:
            parts["nll_text"] = text
        if self.latent_norm_penalty and num_images:
            wide = at_least_float32(output.u)
            penalty, _ = mean(output.u.square().mean(dim=(1, 2), dtype=wide))
            loss = loss + self.latent_norm_penalty * penalty
        return loss, parts

    def reaches_all(self, output: Scores, model: GenerativeModel) -> bool:
        """Return whether every parameter has a gradient from the rows of this process."""
        has_flow = bool(self.flow_weight) and len(output.log_prob) > 0
        has_text = bool(self.text_weight) and len(output.token_nll) > 0
        return has_flow and (has_text or not model.answers)
