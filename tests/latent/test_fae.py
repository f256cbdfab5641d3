"""The feature autoencoder: shapes, statistics, its file, its two stages."""

from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch

from datamodules import EasyVQA
from pretzel.errors import UserError
from pretzel.latent import FAE
from pretzel.latent.fae import (
    AttentionBottleneck,
    ConvPixelDecoder,
    FAENetwork,
    NoBottleneck,
    NoFeatureDecoder,
    TransformerFeatureDecoder,
    ViTPixelDecoder,
)
from pretzel.latent.fae.network import Standardise
from pretzel.latent.features import EfficientNetLite0, FeatureEncoder
from pretzel.latent.features.cache import FeatureCache
from pretzel.training.image_quality import psnr
from pretzel.typing import Tensor


class Means(FeatureEncoder):
    """Mean and spread of each colour over 4 x 4 pixels, as two stages."""

    def __init__(self, image_size: int = 16, grid: tuple[int, int] = (4, 4)) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = grid
        self.stages = (3, 3)
        self.calls = 0

    @property
    def identity(self) -> str:
        return f"means:{self.image_size}"

    def forward(self, images: Tensor) -> Tensor:
        self.calls += len(images)
        self.check_size(images)
        patches = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
        both = torch.cat([patches.mean(-1), patches.std(-1)], dim=1)
        return both.flatten(2).transpose(1, 2)


def network(**parts: object) -> FAENetwork:
    torch.manual_seed(0)
    made = {
        "bottleneck": partial(AttentionBottleneck, channels=4, head_dim=6),
        "feature_decoder": partial(TransformerFeatureDecoder, width=16, num_layers=2, head_dim=8),
        "pixel_decoder": partial(ConvPixelDecoder, widths=(16, 8), num_blocks=1),
    } | parts
    return FAENetwork(Means(), **made)


def measured(images: Tensor, **parts: object) -> FAENetwork:
    """Return a network whose statistics are those of the pictures."""
    made = network(**parts)
    with torch.no_grad():
        for _ in range(200):
            made.encode(images)
    return made.eval()


PARTS = {
    "paper": {},
    "linear": {"bottleneck": partial(AttentionBottleneck, channels=4, num_layers=0)},
    "six layers": {
        "bottleneck": partial(AttentionBottleneck, channels=5, num_layers=6, head_dim=4)
    },
    "features": {"bottleneck": NoBottleneck, "feature_decoder": NoFeatureDecoder},
    "ViT": {"pixel_decoder": partial(ViTPixelDecoder, width=16, num_layers=1, head_dim=8)},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_latents_have_unit_variance_and_a_file_gives_them_back(
    parts: dict, images: Tensor, tmp_path: Path
):
    made = measured(images, **parts)
    made.save(tmp_path / "fae.safetensors")
    before = torch.get_rng_state()
    latent = FAE(noise=0.3, weights=str(tmp_path / "fae.safetensors"))
    own = FAE(noise=0.3, weights=str(tmp_path / "fae.safetensors"), network=network(**parts))
    torch.set_rng_state(before)
    x = latent.encode(images)
    assert x.shape == (64, 16, latent.channels) == (64, latent.num_positions, made.channels)
    spread = x.flatten(0, 1).std(0)
    torch.testing.assert_close(spread, torch.ones_like(spread), rtol=0, atol=0.05)
    torch.testing.assert_close(x, made.encode(images).detach())
    assert torch.equal(x, own.encode(images))
    assert own.identity == latent.identity
    assert latent.decode(x[:3]).shape == (3, 3, 16, 16)
    assert not any(p.requires_grad for p in latent.parameters())
    assert not latent.train().training


def test_every_position_sees_every_other(images: Tensor):
    made = measured(images).double()
    features = made.features(images[:1].double())
    changed = features.clone()
    changed[:, 5] += 1
    for part in (
        lambda f: made.gaussian(f)[0],
        lambda f: made.feature_decoder(made.gaussian(f)[0]),
    ):
        difference = (part(changed) - part(features)).abs().amax(-1)
        assert (difference > 0).all()


def test_features_are_standardised_by_all_that_was_seen(images: Tensor):
    raw = Means()(images) * 3 + 1
    standardise = Standardise((4, 4), 6)
    for batch in raw.split((10, 30, 24)):
        standardise(batch)
    out = standardise.eval()(raw).flatten(0, 1)
    torch.testing.assert_close(out.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(6), rtol=0, atol=1e-3)


def test_images_seen_before_are_encoded_once(images: Tensor):
    encoder = Means()
    cache = FeatureCache(encoder, 1)
    first = cache(images[:8])
    assert torch.equal(cache(images[4:12])[:4], first[4:])
    assert encoder.calls == 12
    torch.testing.assert_close(first, encoder(images[:8]), rtol=1e-3, atol=1e-3)
    assert torch.equal(FeatureCache(encoder, 0)(images[:8]), encoder(images[:8]))


def test_the_cache_forgets_the_oldest(images: Tensor):
    cache = FeatureCache(Means(), 1)
    cache._max_bytes = 5 * 16 * 6 * 2  # five images
    cache(images)
    assert len(cache._features) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(weights="nowhere.safetensors"), "no such file"),
        (dict(weights="."), r"must name a file that export wrote, got \.: a folder"),
        (dict(noise=-1.0), "noise must be 0 or positive"),
    ],
)
def test_mistakes_are_named(change: dict, message: str):
    with pytest.raises(UserError, match=message):
        FAE(**{"noise": 0.3, "weights": "x"} | change)


def test_another_encoder_is_refused(images: Tensor, tmp_path: Path, monkeypatch):
    measured(images).save(tmp_path / "fae.safetensors")
    latent = FAE(noise=0.3, weights=str(tmp_path / "fae.safetensors"))
    monkeypatch.setattr(Means, "identity", "others")
    with pytest.raises(UserError, match="trained with, means:16, got others"):
        latent.encode(images)


def test_the_shipped_one_gives_the_embedded_pictures_back():
    latent = FAE(noise=0.3)
    pictures = torch.stack([sample.image for sample in islice(EasyVQA().samples("val", 64), 24)])
    x = latent.encode(pictures)
    assert 0.9 < x.std() < 1.1
    assert psnr(latent.decode(x), pictures).mean() > 34
    noised = x + latent.noise * torch.randn_like(x)
    assert psnr(latent.decode(noised), pictures).mean() > 33
    with torch.device("meta"):  # where grids are planned
        assert {p.device.type for p in FAE(noise=0.3).parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((4, 8), r"encoder must have a square grid, as images are, got \[4, 8\]"),
        ((2, 2), r"must give 2 x 2 vectors of 6 channels, its grid and stages, got \(16, 6\)"),
    ],
)
def test_a_grid_that_is_not_square_or_not_as_stated_is_refused(
    grid: tuple[int, int], message: str, images: Tensor
):
    with pytest.raises(UserError, match=message):
        FAENetwork(Means(grid=grid), NoBottleneck, NoFeatureDecoder).features(images)


def test_other_channels_in_a_file_are_refused(images: Tensor, tmp_path: Path):
    measured(images).save(tmp_path / "fae.safetensors")
    fewer = network(bottleneck=partial(AttentionBottleneck, channels=3, head_dim=6))
    with pytest.raises(
        UserError, match=r"bottleneck\.out\.bias has shape \(8,\) instead of \(6,\)"
    ):
        FAE(noise=0.3, weights=str(tmp_path / "fae.safetensors"), network=fewer)


def test_what_decodes_nothing_is_refused(images: Tensor, tmp_path: Path):
    first = measured(images, pixel_decoder=None)
    first.save(tmp_path / "features.safetensors")
    with pytest.raises(
        UserError, match=r"weights=.*features\.safetensors must have a pixel decoder"
    ):
        FAE(noise=0.3, weights=str(tmp_path / "features.safetensors"))
    with pytest.raises(UserError, match="network must have a pixel decoder"):
        FAE(noise=0.3, network=first)


def test_nothing_trains_on_an_untrained_one():
    with pytest.raises(UserError, match="weights of the FAE must be given"):
        _ = FAE(noise=0.3, network=network()).identity


def test_a_constant_channel_is_refused(images: Tensor, tmp_path: Path):
    made = measured(images)
    with torch.no_grad():
        made.normalize.running_var[2] = 0
    with pytest.raises(UserError, match=r"1 of 4 latent channels are constant.*number 2"):
        made.save(tmp_path / "fae.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_names_other_classes_builds_nothing(images: Tensor, tmp_path: Path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "fae.safetensors"
    measured(images).save(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        record = file.metadata()["pretzel.fae"]
    hostile = record.replace("pretzel.latent.fae.bottleneck.AttentionBottleneck", "os.system")
    save_file(state, path, {"pretzel.fae": hostile})
    with pytest.raises(UserError, match=r"os\.system is no Bottleneck that is known"):
        FAE(noise=0.3, weights=str(path))


def test_efficientnet_gives_its_blocks_and_is_deterministic():
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    state = torch.get_rng_state()
    encoder = EfficientNetLite0(16, 32, (4, 10))
    assert encoder.grid == (2, 2)
    assert encoder.stages == (160, 112)
    both = encoder(images)
    assert both.shape == (2, 4, 272)
    # of the second block alone, the same values
    torch.testing.assert_close(both[..., 160:], EfficientNetLite0(16, 32, (10,))(images))
    torch.testing.assert_close(both[:1], encoder(images[:1]), rtol=1e-4, atol=1e-4)
    random = EfficientNetLite0(16, 32, (4, 10), random_seed=3)
    assert torch.equal(random(images), EfficientNetLite0(16, 32, (4, 10), random_seed=3)(images))
    assert random.identity != encoder.identity
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(encoder.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 128, (10, 4)), r"blocks must be ascending numbers from 0 to 15, got \[10, 4\]"),
        ((64, 120, (10,)), "input_size must be a multiple of 16, the stride of block 10, got 120"),
        ((0, 128, (10,)), "image_size must be positive"),
    ],
)
def test_sizes_of_an_encoder_are_checked(arguments: tuple, message: str):
    with pytest.raises(UserError, match=message):
        EfficientNetLite0(*arguments)
