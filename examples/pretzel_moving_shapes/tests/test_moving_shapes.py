"""Videos are told apart exactly, splits are disjoint, and time is causal in the model."""

import io
import tarfile
from functools import partial

import numpy as np
import torch
from PIL import Image
from pretzel.flow import AFBlock, AffineSoftplus, CausalTransformer, FlipWithinFrame, Raster
from pretzel.flow.block import FlowStack
from pretzel.latent import Patches
from pretzel.media import Videos

from pretzel_moving_shapes import MotionAccuracy
from pretzel_moving_shapes.__main__ import write_shards
from pretzel_moving_shapes.judge import look
from pretzel_moving_shapes.world import motions


def as_item(motion):
    return torch.from_numpy(np.moveaxis(motion.frames(), -1, 1) / 127.5 - 1).float()


def test_every_value_is_one_on_real_videos_and_small_on_noise():
    some = list(motions())[::7]
    metric = MotionAccuracy()
    metric.update(torch.stack([as_item(motion) for motion in some]), [m.caption for m in some])
    values = metric.compute()
    assert values.pop("motion_n") == len(some)
    assert set(values.values()) == {1.0}
    metric.reset()
    noise = torch.rand(20, *as_item(some[0]).shape, generator=torch.Generator().manual_seed(0))
    metric.update(2 * noise - 1, [some[0].caption] * 20)
    assert metric.compute()["right"] == metric.compute()["steady"] == 0


def test_what_is_wrong_is_seen():
    motion = next(m for m in motions() if m.caption == "left moving red circle")
    video = as_item(motion).numpy()
    assert look(video[::-1]).direction == "right"
    assert look(video.swapaxes(2, 3)).direction == "up"
    assert look(video[:, ::-1]).colour == "blue"
    still = look(np.repeat(video[:1], len(video), axis=0))
    assert (still.direction, still.steady) == ("none", False)
    assert not look(np.concatenate([video[:3], video[3:][::-1]])).steady


def test_shards_share_no_video_and_hold_what_was_drawn(tmp_path):
    some = list(motions())[::7]
    counts = write_shards(tmp_path, some, seed=1)
    found = {}
    for split, count in counts.items():
        with tarfile.open(tmp_path / f"{split}.tar") as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        found[split] = {name.removesuffix(".webp") for name in members if name.endswith(".webp")}
        assert len(found[split]) == count
    assert sum(counts.values()) == len(set.union(*found.values())) == len(some)
    motion = next(motion for motion in some if motion.key in found["test"])
    assert members[f"{motion.key}.txt"].decode() == motion.caption
    assert np.array_equal(Videos(6, 16).read(members[f"{motion.key}.webp"]), motion.frames())
    with Image.open(io.BytesIO(members[f"{motion.key}.webp"])) as picture:
        assert (picture.format, picture.n_frames) == ("WEBP", 6)


def test_a_frame_does_not_depend_on_later_ones():
    latent = Patches(Videos(4, 4), [2, 2, 2], 0.0)

    def block(permutation):
        return AFBlock(
            latent.channels, latent.grid, 1, permutation, transform=AffineSoftplus(),
            conditioner=partial(CausalTransformer, width=8, head_dim=8),
        )  # fmt: skip

    stack = FlowStack([block(Raster()), block(FlipWithinFrame())])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    z = torch.randn(1, latent.num_positions, latent.channels, generator=generator)
    other = z.clone()
    other[:, latent.num_positions // 2 :] += 1  # the second half of the time
    with torch.no_grad():
        first, second = (latent.decode(stack.inverse(noise)) for noise in (z, other))
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2:], second[:, 2:])
