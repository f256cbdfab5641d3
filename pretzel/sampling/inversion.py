"""The problem that a sampler solves: x_i = T^-1(z_i; theta(x_<i)), with branches and caches."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.flow.block import AutoregressiveBlock
from pretzel.flow.context import Context
from pretzel.flow.transforms import Transform
from pretzel.latent.generative_model import GenerativeModel
from pretzel.sampling.guidance import Gaussian, Guidance
from pretzel.typing import Float, Tensor


class Branches:
    """The rows of a batch, and with guidance those of the null branch behind them.

    Both branches go through the network as one batch and receive the same guided x. The noise is
    in scan order; without guidance there is no null branch.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """

    def __init__(
        self, z: Float[Tensor, "b n d"], transform: Transform, guidance: Guidance | None
    ) -> None:
        self.z = z
        self.transform = transform
        self.guidance = guidance
        self.num_rows = len(z)
        self.rows = z.clone()
        if guidance is not None:
            check_guidance(guidance, transform)
            self.rows = torch.cat([z, z])
            self.weights = guidance.weights(0, z.shape[1], z.shape[1]).to(z)

    @property
    def x(self) -> Float[Tensor, "b n d"]:
        """The estimate, scan order; the noise itself to begin with."""
        return self.rows[: self.num_rows]

    def invert(
        self, start: int, stop: int, params: Float[Tensor, "r k p"]
    ) -> Float[Tensor, "b k d"]:
        """Return x of positions start .. stop - 1 by the parameters of all branches."""
        z = self.z[:, start:stop]
        if self.guidance is None:
            return self.transform.inverse(z, params)
        mu, sigma = self.transform.location_and_scale(params)
        b = self.num_rows
        conditional = Gaussian(mu=mu[:b], sigma=sigma[:b])
        null = Gaussian(mu=mu[b:], sigma=sigma[b:])
        mixed = self.guidance.mix(conditional, null, self.weights[start:stop])
        return mixed.mu + mixed.sigma * z

    def write(self, start: int, stop: int, x: Float[Tensor, "b k d"]) -> None:
        """Set the estimate of positions start .. stop - 1 in all branches."""
        self.rows.view(-1, *self.z.shape)[:, :, start:stop] = x


def check_guidance(guidance: Guidance, transform: Transform) -> None:
    """Refuse guidance of conditionals that are not Gaussian."""
    if guidance.weight != 0 and not transform.is_affine:
        raise UserError(
            f"{type(guidance).__name__} needs an affine transform, got {type(transform).__name__}"
        )


def check_guided(model: GenerativeModel, guidance: Guidance) -> None:
    """Refuse guidance that would have to mix conditionals of a model that are not Gaussian.

    Guidance that has no null branch there does nothing and is let be.
    """
    if guidance.has_null_branch(model.reads_text):
        for transform in model.guided_transforms:
            check_guidance(guidance, transform)


class Inversion(ABC):
    """One autoregressive map on its way to being inverted.

    Attributes:
        branches: Noise, estimate and guidance, in scan order.
    """

    branches: Branches

    @property
    def num_positions(self) -> int:
        """Positions of the scan."""
        return self.branches.z.shape[1]

    @abstractmethod
    def step(self, index: int) -> None:
        """Set position ``index`` from those before it, which are final; commits what it reads."""

    @abstractmethod
    def evaluate(self, start: int, stop: int) -> Float[Tensor, "b k d"]:
        """Return x of positions start .. stop - 1 by the present estimate; commits what it reads.

        Everything before ``start`` is final and has been committed.
        """

    @abstractmethod
    def rewind(self, start: int, stop: int) -> None:
        """Take back what the last :meth:`evaluate` of these positions has committed."""

    @property
    @abstractmethod
    def estimate(self) -> Float[Tensor, "b n d"]:
        """The present estimate in raster order, whatever it holds."""

    @abstractmethod
    def trial(self, z: Float[Tensor, "k n d"]) -> "Inversion":
        """Return a problem of this kind for other noise (raster order), its caches its own.

        It has no prompts, and does not depend on the rows of this one.
        """


class BlockInversion(Inversion):
    """The inversion of an autoregressive block, of noise in raster order.

    A block that reads no context is guided only by an attention temperature; ``temperature``
    divides the attention logits of all branches.

    Raises:
        UserError: If z is not the block's, or guidance is asked for with a transform that is not
            affine.
    """

    def __init__(
        self,
        block: AutoregressiveBlock[Any],
        z: Float[Tensor, "b n d"],
        context: Context | None = None,
        null_context: Context | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not block.reads_context:
            context = null_context = None
        block.check("z", z, context)
        self.block = block
        self.arguments = (z, context, null_context, guidance, temperature)
        if guidance is not None and not guidance.has_null_branch(null_context is not None):
            guidance = None
        self.branches = Branches(z[:, block.order], block.transform, guidance)
        rows = len(self.branches.rows)
        if guidance is not None and context is not None:
            null = context if guidance.keeps_context else null_context
            if null is None:
                raise UserError(
                    f"{type(guidance).__name__} needs a null context for {type(block).__name__}, "
                    "got none"
                )
            context = torch.cat([context, null])
        null_temperature = 1.0 if guidance is None else guidance.temperature
        temperatures = None
        if temperature != 1 or null_temperature != 1:
            temperatures = z.new_full((rows,), temperature)
            temperatures[len(z) :] *= null_temperature
        # A block that knows neither contexts nor temperatures need not take them.
        optional = {"context": context, "temperature": temperatures}
        self.cache = block.new_cache(
            rows, **{name: value for name, value in optional.items() if value is not None}
        )

    @property
    def x(self) -> Float[Tensor, "b n d"]:
        """The estimate, raster order; refused if it is not finite."""
        x = self.estimate
        self.block.check_finite("x", x)
        return x

    @property
    def estimate(self) -> Float[Tensor, "b n d"]:
        """The present estimate."""
        return self.branches.x[:, self.block.rank]

    def step(self, index: int) -> None:
        """Set position ``index`` with the block's cache."""
        previous = self.branches.rows[:, index - 1] if index else None
        params = self.block.step(previous, index, self.cache)
        params = self.block.complete(params[:, None], index)
        self.branches.write(index, index + 1, self.branches.invert(index, index + 1, params))

    def evaluate(self, start: int, stop: int) -> Float[Tensor, "b k d"]:
        """Ask the block for several positions at once."""
        params = self.block.evaluate(self.branches.rows, start, stop, self.cache)
        return self.branches.invert(start, stop, self.block.complete(params, start))

    def rewind(self, start: int, stop: int) -> None:
        """Take back the block's last evaluation."""
        self.block.rewind(start, stop, self.cache)

    def trial(self, z: Float[Tensor, "k n d"]) -> "BlockInversion":
        """Return the inversion of other noise under the null context.

        Where there is none, the contexts of these rows serve in turn.
        """
        _, context, null_context, guidance, temperature = self.arguments
        if context is not None:
            contexts = context if null_context is None else null_context[:1]
            context = contexts[torch.arange(len(z), device=contexts.device) % len(contexts)]
            null_context = None if null_context is None else context
        return BlockInversion(self.block, z, context, null_context, guidance, temperature)
