"""The inversion of the deep stream: u of one image, position by position, both streams cached."""

import torch

from pretzel.errors import UserError
from pretzel.generation.state import GenerationState
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import Branches, Inversion
from pretzel.sampling.samplers import Sampler, Sequential
from pretzel.sampling.stack import Sampled
from pretzel.typing import Float, Tensor


class DeepInversion(Inversion):
    """The inversion of the deep stream behind begin-of-image.

    Both streams are committed as it goes. With guidance the null branch runs beside the
    conditional one as further rows of the same batch, with its own rows of the caches; both
    receive the same guided u_n. In the state an image has been begun; z is standard normal noise.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """

    def __init__(
        self, state: GenerationState, z: Float[Tensor, "b n d"], guidance: Guidance
    ) -> None:
        assert state.is_in_image
        self.state = state
        self.guidance = guidance
        self.deep = state.model.deep
        self.branches = Branches(z, self.deep.transform, guidance if state.has_null_rows else None)

    def step(self, index: int) -> None:
        """Set one position."""
        self.branches.write(index, index + 1, self.evaluate(index, index + 1))

    def evaluate(self, start: int, stop: int) -> Float[Tensor, "b k d"]:
        """Run the streams over what stands before each of the positions."""
        states = []
        if start == 0:
            states.append(self.state.deep_state[:, None])  # of begin-of-image
        first = max(start - 1, 0)
        if stop - 1 > first:
            states.append(self.state.run_image(self.branches.rows[:, first : stop - 1], first))
        params = self.deep.params(torch.cat(states, dim=1), start)
        return self.branches.invert(start, stop, params)

    def rewind(self, start: int, stop: int) -> None:
        """Take the positions before each of the last ones out of both caches."""
        assert self.state.caches is not None
        self.state.caches.rewind(stop - start - (start == 0))

    @property
    def estimate(self) -> Float[Tensor, "b n d"]:
        """The estimate of u, whatever it holds."""
        return self.branches.x

    def trial(self, z: Float[Tensor, "k n d"]) -> "DeepInversion":
        """Return the inversion of other noise behind begin-of-image alone."""
        state = GenerationState(self.state.model, len(z), 1 + self.num_positions)
        state.begin_image(self.guidance)
        return DeepInversion(state, z, self.guidance)


def generate_u(
    state: GenerationState,
    z: Float[Tensor, "b n d"],
    guidance: Guidance,
    sampler: Sampler | None = None,
) -> Sampled:
    """Generate u of an image for each row, each position committed once; leave the image open.

    Without a sampler positions are found one after the other.

    Raises:
        UserError: If z has other rows, guidance cannot mix the transform, the interleaving models
            no image here, or it does not fit.
    """
    if len(z) != state.num_rows:
        raise UserError(f"z must have {state.num_rows} rows, one per sequence, got {len(z)}")
    with state.transaction():
        state.begin_image(guidance)
        inversion = DeepInversion(state, z, guidance)
        work = (sampler or Sequential()).solve(inversion, 0)
        state.complete_image(inversion.branches.rows[:, -1:])
    return Sampled(x=inversion.branches.x, work=(work,))
