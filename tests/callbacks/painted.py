"""A module whose drawings and answers are known."""

from functools import partial

import torch
from tiny import TRANSFORMER
from torch import Tensor

from pretzel.flow import AFBlock, AffineSoftplus, DeepStream, ExplicitSplit, Flip, Raster
from pretzel.interleave.base import InterleavingFactory
from pretzel.latent import Pixels
from pretzel.latent.pixels import patchify
from pretzel.model import Pretzel
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import NoGuidance
from pretzel.sampling.samplers import Sequential
from pretzel.sequence.document import DocumentBatch
from pretzel.training.module import PretzelModule
from pretzel.training.schedule import Constant
from pretzel.vlm.tiny import TinyVLM


class Painter(Denoiser):
    """Makes known pictures of whatever has been drawn, in order."""

    def __init__(self, painted: list[Tensor]) -> None:
        self.painted = list(painted)

    def __call__(self, x: Tensor, sigma: float, log_prob: object) -> Tensor:
        some, self.painted = self.painted[: len(x)], self.painted[len(x) :]
        return patchify(torch.stack(some), 16)


class Forced(PretzelModule):
    def test_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Leave everything to the callback: what is said has no likelihood."""


def forced(painted: list[Tensor], says: InterleavingFactory) -> PretzelModule:
    """Return a module whose pictures are painted, and whose answers are what ``says`` says."""
    return Forced(
        pretzel=Pretzel(
            latent=Pixels(image_size=32, patch_size=16, noise=0.05),
            split=ExplicitSplit(shallow=[1, 1], deep=1),
            permutations=[Raster(), Flip()],
            shallow=partial(AFBlock, transform=AffineSoftplus(), conditioner=TRANSFORMER),
            deep=partial(DeepStream, transform=AffineSoftplus(), conditioner=TRANSFORMER),
            vlm=TinyVLM(),
            interleaving=says,
        ),
        text_weight=1.0,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=Constant(),
        guidance=NoGuidance(),
        denoiser=Painter(painted),
        sampler=Sequential(),
    )
