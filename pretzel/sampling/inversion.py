"""What a sampler solves: x_i = T^-1(z_i; theta(x_<i)) along a scan, with branches and caches."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from pretzel.errors import UserError
from pretzel.flow.block import AutoregressiveBlock
from pretzel.flow.context import Context
from pretzel.flow.transforms import Transform
from pretzel.sampling.guidance import Guidance
from pretzel.typing import Float, Tensor


class Branches:
    """The rows of a batch, and with guidance those of the null branch behind them.

    Both branches go through the network as one batch and receive the same guided x.

    Args:
        z: Noise, scan order.
        transform: Elementwise transform.
        guidance: How the branches are mixed; None for no null branch.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """

    def __init__(
        self, z: Float[Tensor, "b n d"], transform: Transform, guidance: Guidance | None
    ) -> None:
        self.z = z
        self.transform = transform
        self.guidance = guidance
        if guidance is not None:
            check_guidance(guidance, transform)
        self.num_rows = len(z)
        self.rows = torch.cat([z, z]) if guidance is not None else z.clone()
        if guidance is not None:
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
        mu, sigma = self.guidance.mix(
            mu[:b], sigma[:b], mu[b:], sigma[b:], self.weights[start:stop]
        )
        return mu + sigma * z

    def write(self, start: int, stop: int, x: Float[Tensor, "b k d"]) -> None:
        """Set the estimate of positions start .. stop - 1 in all branches."""
        self.rows[: self.num_rows, start:stop] = x
        if self.guidance is not None:
            self.rows[self.num_rows :, start:stop] = x


def check_guidance(guidance: Guidance, transform: Transform) -> None:
    """Refuse guidance of conditionals that are not Gaussian.

    Raises:
        UserError: Naming both.
    """
    if guidance.weight != 0 and not transform.is_affine:
        raise UserError(
            f"{type(guidance).__name__} needs an affine transform, got {type(transform).__name__}"
        )


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

    @abstractmethod
    def restart(self, num_rows: int) -> "Inversion":
        """Return the same problem for the first rows, from the beginning, with its own caches."""


class BlockInversion(Inversion):
    """The inversion of an autoregressive block.

    Args:
        block: The block.
        z: Noise, raster order.
        context: What the block is conditioned on, where it reads a context.
        null_context: The null branch's context.
        guidance: How the branches are mixed. A block that reads no context is guided only by an
            attention temperature.
        temperature: Divides the attention logits of all branches.

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
        guided = guidance is not None and guidance.weight != 0
        if guided and guidance is not None and guidance.temperature == 1:
            guided = null_context is not None
        self.branches = Branches(z[:, block.order], block.transform, guidance if guided else None)
        rows = len(self.branches.rows)
        temperatures = None
        if guided and guidance is not None:
            if context is not None:
                null = context if guidance.keeps_context else null_context
                if null is None:
                    raise UserError(
                        f"{type(guidance).__name__} needs a null context for "
                        f"{type(block).__name__}, got none"
                    )
                context = torch.cat([context, null])
            if guidance.temperature != 1 or temperature != 1:
                temperatures = z.new_full((rows,), temperature)
                temperatures[len(z) :] *= guidance.temperature
        elif temperature != 1:
            temperatures = z.new_full((rows,), temperature)
        # A block that knows neither contexts nor temperatures need not take them.
        optional = {"context": context, "temperature": temperatures}
        self.cache = block.new_cache(
            rows, **{name: value for name, value in optional.items() if value is not None}
        )

    @property
    def x(self) -> Float[Tensor, "b n d"]:
        """The estimate, raster order.

        Raises:
            UserError: If it is not finite.
        """
        x = self.branches.x[:, self.block.rank]
        self.block.check_finite("x", x)
        return x

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

    def restart(self, num_rows: int) -> "BlockInversion":
        """Return the same problem for the first rows."""
        z, context, null_context, guidance, temperature = self.arguments
        return BlockInversion(
            self.block,
            z[:num_rows],
            None if context is None else context[:num_rows],
            None if null_context is None else null_context[:num_rows],
            guidance,
            temperature,
        )
