import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pretzel.errors import UserError
from pretzel.latent import Autoencoder, ConvAutoencoder
from pretzel.typing import Tensor


@pytest.fixture
def latent(weights: Path) -> Autoencoder:
    return Autoencoder(weights=str(weights), patch_size=2, noise=0.1)


def test_shapes_are_those_announced(latent: Autoencoder, images: Tensor):
    latents = latent.encode(images[:3])
    assert latent.grid == (2, 2)
    assert latents.shape == (3, latent.num_positions, latent.channels) == (3, 4, 16)
    assert latent.decode(latents).shape == (3, 3, latent.image_size, latent.image_size)


def test_a_position_is_a_square_of_latents_in_raster_order(
    latent: Autoencoder, autoencoder: ConvAutoencoder, images: Tensor
):
    maps = autoencoder.encode(images[:2])
    latents = latent.encode(images[:2])
    torch.testing.assert_close(latents[:, 1], maps[:, :, :2, 2:].flatten(1), rtol=0, atol=0)
    torch.testing.assert_close(latents[:, 2], maps[:, :, 2:, :2].flatten(1), rtol=0, atol=0)


def test_patches_are_undone_before_decoding(
    latent: Autoencoder, autoencoder: ConvAutoencoder, images: Tensor
):
    expected = autoencoder.decode(autoencoder.encode(images[:4]))
    torch.testing.assert_close(latent.decode(latent.encode(images[:4])), expected)


def test_latents_have_mean_0_and_variance_1_in_each_channel(latent: Autoencoder, images: Tensor):
    latents = latent.encode(images)
    channels = latents.reshape(len(images), 4, 4, 4).transpose(0, 2).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(4), rtol=0, atol=0.01)
    torch.testing.assert_close(channels.std(1), torch.ones(4), rtol=0, atol=0.01)


def test_the_encoder_cannot_outgrow_the_noise(autoencoder: ConvAutoencoder, images: Tensor):
    grown = ConvAutoencoder(image_size=16, channels=4, widths=(8, 16), num_blocks=1)
    grown.load_state_dict(autoencoder.state_dict())
    before = grown.train().encode(images)
    with torch.no_grad():
        for parameter in grown.encoder[-1].parameters():
            parameter.mul_(10)
    torch.testing.assert_close(grown.encode(images), before, rtol=1e-3, atol=1e-3)


def test_train_leaves_it_in_eval_mode(latent: Autoencoder, images: Tensor):
    before = {name: value.clone() for name, value in latent.state_dict().items()}
    latent.train()
    alone = latent.encode(images[:1])
    together = latent.encode(images)[:1]
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    for name, value in latent.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_weights_ask_for_no_gradient_but_let_it_pass(latent: Autoencoder, images: Tensor):
    assert not any(parameter.requires_grad for parameter in latent.parameters())
    latents = latent.encode(images[:2]).requires_grad_()
    latent.decode(latents).sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().max() > 0


def test_a_file_gives_the_same_autoencoder_bit_for_bit(
    autoencoder: ConvAutoencoder, weights: Path, images: Tensor
):
    loaded = ConvAutoencoder.load(weights).eval()
    assert loaded.state_dict().keys() == autoencoder.state_dict().keys()
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    maps = autoencoder.encode(images)
    assert torch.equal(loaded.encode(images), maps)
    assert torch.equal(loaded.decode(maps), autoencoder.decode(maps))


def test_equal_weights_give_equal_bytes_and_identity(weights: Path, tmp_path: Path):
    again = tmp_path / "new" / "again.safetensors"
    ConvAutoencoder.load(weights).save(again)
    assert again.read_bytes() == weights.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == [again.name]
    first, second = (Autoencoder(2, 0.1, str(path)) for path in (weights, again))
    assert first.identity == second.identity


def test_identity_follows_the_weights(weights: Path, tmp_path: Path):
    other = ConvAutoencoder.load(weights)
    with torch.no_grad():
        other.decoder[0].bias[0] += 1e-3
    other.save(tmp_path / "other")
    identities = {Autoencoder(2, 0.1, str(path)).identity for path in (weights, tmp_path / "other")}
    assert len(identities) == 2


def test_a_failed_save_leaves_the_old_file(
    autoencoder: ConvAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        autoencoder.save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_constant_channel_is_refused(autoencoder: ConvAutoencoder, tmp_path: Path):
    autoencoder = deepcopy(autoencoder)
    with torch.no_grad():
        autoencoder.normalize.running_var[1] = 0
    with pytest.raises(UserError, match=r"1 of 4 latent channels are constant.*number 1"):
        autoencoder.save(tmp_path / "autoencoder.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_loading_draws_no_random_numbers(weights: Path):
    before = torch.random.get_rng_state()
    Autoencoder(weights=str(weights), patch_size=2, noise=0.1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_can_be_planned_on_the_meta_device(weights: Path):
    with torch.device("meta"):
        latent = Autoencoder(weights=str(weights), patch_size=2, noise=0.1)
        latents = latent.encode(torch.empty(5, 3, 16, 16))
    assert {tensor.device.type for tensor in latent.state_dict().values()} == {"meta"}
    assert latent.decode(latents).shape == (5, 3, 16, 16)


def test_missing_weights_are_an_error_at_construction(tmp_path: Path):
    with pytest.raises(UserError, match=r"weights must name .*absent\.safetensors.*not exist"):
        Autoencoder(weights=str(tmp_path / "absent.safetensors"), patch_size=2, noise=0.1)


def test_wrong_files_are_refused(weights: Path, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("not tensors at all")
    foreign = tmp_path / "foreign"
    save_file({"weight": torch.zeros(2)}, foreign)
    half = tmp_path / "half"
    half.write_bytes(weights.read_bytes()[:-100])
    renamed = tmp_path / "renamed"
    renamed.write_bytes(weights.read_bytes().replace(b"decoder.0.bias", b"decoder.0.bios"))
    other_shape = tmp_path / "other_shape"
    other_shape.write_bytes(weights.read_bytes().replace(b"[8, 16]", b"[8, 24]"))
    for path in (text, foreign, half, renamed, other_shape):
        with pytest.raises(UserError, match=rf"weights must name .*{path.name}"):
            Autoencoder(weights=str(path), patch_size=2, noise=0.1)


def test_images_of_another_size_are_refused(latent: Autoencoder):
    with pytest.raises(UserError, match=r"images must be 16 x 16 pixels .*got \(32, 32\)"):
        latent.encode(torch.zeros(1, 3, 32, 32))


def test_settings_that_cannot_be_are_refused(weights: Path):
    with pytest.raises(UserError, match=r"patch_size must divide the side 4 .*got 3"):
        Autoencoder(weights=str(weights), patch_size=3, noise=0.1)
    with pytest.raises(UserError, match=r"noise must be 0 or positive, and finite, got -0\.1"):
        Autoencoder(weights=str(weights), patch_size=2, noise=-0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", 18),
        ("image_size", 0),
        ("channels", 0),
        ("widths", ()),
        ("widths", (8, 12)),
        ("num_blocks", -1),
    ],
)
def test_sizes_that_cannot_be_are_refused(name: str, value: object):
    sizes = {"image_size": 16, "channels": 4, "widths": (8, 16), "num_blocks": 1, name: value}
    with pytest.raises(UserError, match=rf"^{name} must be"):
        ConvAutoencoder(**sizes)


def test_a_file_overwritten_later_changes_nothing(weights: Path, tmp_path: Path, images: Tensor):
    path = tmp_path / "gone"
    shutil.copy(weights, path)
    latent = Autoencoder(weights=str(path), patch_size=1, noise=0.0)
    expected = latent.encode(images).clone()
    path.write_bytes(bytes(path.stat().st_size))  # a new run overwrites the file in place
    assert torch.equal(latent.encode(images), expected)
