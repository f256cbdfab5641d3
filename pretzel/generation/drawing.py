"""The deep stream behind what a session has read: an image, both streams cached."""

from typing import TYPE_CHECKING

import torch

from pretzel.interleave.base import StreamInputs
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import Branches, Inversion
from pretzel.typing import Float, Tensor

if TYPE_CHECKING:
    from pretzel.generation.session import Session


class StreamInversion(Inversion):
    """The inversion of the deep stream in a session that has begun an image.

    Both streams are committed as it goes. With guidance the null branch runs beside the
    conditional one as further rows of the same batch, with its own rows of the caches; both
    receive the same guided u_n.

    Args:
        session: A session behind begin-of-image.
        z: Standard normal noise.
        guidance: How the branches are mixed.

    Raises:
        UserError: If guidance is asked for with a transform that is not affine.
    """

    def __init__(self, session: "Session", z: Float[Tensor, "b n d"], guidance: Guidance) -> None:
        assert session.is_drawing
        assert session.caches is not None
        self.session = session
        self.model = session.model
        self.caches = session.caches
        self.guidance = guidance
        rows = session.rows
        has_null_branch = rows.count > session.num_rows
        self.branches = Branches(
            z, self.model.deep.transform, guidance if has_null_branch else None
        )
        # What the image's positions are given but u is the same at every step.
        n, self.begin = self.num_positions, rows.length
        self.state = rows.state
        rows.valid[:, self.begin : self.begin + n] = True
        self.is_valid = rows.valid[:, None, None]
        self.causal = rows.valid.new_ones(n, self.begin + n).tril(self.begin)
        self.layout = rows.image_layout(self.model, rows.next_index, rows.place)

    def step(self, index: int) -> None:
        """Set one position."""
        self.branches.write(index, index + 1, self.evaluate(index, index + 1))

    def evaluate(self, start: int, stop: int) -> Float[Tensor, "b k d"]:
        """Run the streams over what stands before each of the positions."""
        states = self.read(max(start - 1, 0), stop - 1)
        if start == 0:
            states = torch.cat([self.state[:, None], states], dim=1)
        return self.branches.invert(start, stop, self.model.deep.params(states, start))

    def rewind(self, start: int, stop: int) -> None:
        """Take the positions before each of the last ones out of both caches."""
        self.caches.rewind(stop - start - (start == 0))

    def read(self, start: int, stop: int) -> Float[Tensor, "r k w"]:
        """Run the streams over u_start .. u_{stop-1} and commit them; return the deep states."""
        u = self.branches.rows[:, start:stop]
        rows, length = u.shape[:2]
        if not length:
            return self.state.new_zeros(rows, 0, self.state.shape[-1])
        keys = self.begin + stop
        mask = self.is_valid[..., :keys]
        if length > 1:  # a single position, the last, may attend all keys so far
            mask = mask & self.causal[start:stop, :keys]
        tokens, is_image, index, positions = self.layout
        inputs = StreamInputs(
            tokens=tokens[:, start:stop],
            is_image=is_image[:, start:stop],
            u=u,
            index=index[:, start:stop],
            positions=positions[:, start:stop],
            mask=mask,
        )
        streams = self.model.interleaving(inputs, self.model.vlm, self.model.deep, self.caches)
        states: Tensor = streams.deep
        return states

    def finish(self) -> None:
        """Commit the last position, so that both caches hold the whole image."""
        n = self.num_positions
        rows = self.session.rows
        rows.state = self.read(n - 1, n)[:, -1]
        rows.length += n
        rows.next_index = rows.next_index + self.model.packer.index_length
        rows.place = rows.place + 1

    @property
    def estimate(self) -> Float[Tensor, "b n d"]:
        """The estimate of u, whatever it holds."""
        return self.branches.x

    def trial(self, z: Float[Tensor, "k n d"]) -> "StreamInversion":
        """Return the inversion of other noise behind begin-of-image alone."""
        session = type(self.session)(self.model, len(z), 1 + self.num_positions)
        session.begin_image(self.guidance)
        return StreamInversion(session, z, self.guidance)
