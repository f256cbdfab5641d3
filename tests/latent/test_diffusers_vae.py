from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file, save_file

from pretzel.latent import DiffusersVAE

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real AutoencoderKL, tiny and untrained."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
        layers_per_block=1, scaling_factor=0.25,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("vae")
    vae.save_pretrained(path)
    return str(path), vae


def test_latents_are_the_scaled_means_in_raster_order(folder):
    path, vae = folder
    latent = DiffusersVAE(path, image_size=16, downsampling=2, noise=0.3)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    x = latent.encode(images)
    assert x.shape == (2, latent.num_positions, latent.channels) == (2, 64, 4)
    with torch.no_grad():
        mean = vae.encode(images).latent_dist.mean
        expected = vae.decode(mean).sample
    torch.testing.assert_close(x[1, 11], 0.25 * mean[1, :, 1, 3])
    torch.testing.assert_close(latent.decode(x), expected)


def test_statistics_of_each_channel_are_those_of_its_configuration(folder, tmp_path):
    _, vae = folder
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    means, stds = [0.1, -0.2, 0.3, 0.0], [2.0, 0.5, 1.0, 4.0]
    own = deepcopy(vae)
    own.register_to_config(latents_mean=means, latents_std=stds)
    own.save_pretrained(tmp_path / "own")
    latent = DiffusersVAE(str(tmp_path / "own"), image_size=16, downsampling=2)
    x = latent.encode(images)
    with torch.no_grad():
        raw = vae.encode(images).latent_dist.mean.flatten(2).transpose(1, 2)
        decoded = vae.decode(vae.encode(images).latent_dist.mean).sample
    torch.testing.assert_close(x, (raw - torch.tensor(means)) / torch.tensor(stds))
    torch.testing.assert_close(latent.decode(x), decoded)
    own.register_to_config(latents_mean=None, latents_std=None, shift_factor=0.5)
    own.save_pretrained(tmp_path / "shifted")
    shifted = DiffusersVAE(str(tmp_path / "shifted"), image_size=16, downsampling=2)
    torch.testing.assert_close(shifted.encode(images), (raw - 0.5) * 0.25)
    own.register_to_config(latents_mean=[0.0], latents_std=[1.0, -1.0])
    own.save_pretrained(tmp_path / "wrong")
    with pytest.raises(ValueError, match="a value for each of 4 channels"):
        DiffusersVAE(str(tmp_path / "wrong"), image_size=16, downsampling=2).encode(images)


def test_patches_hold_the_same_numbers(folder):
    path, _ = folder
    images = torch.rand(1, 3, 16, 16)
    whole = DiffusersVAE(path, image_size=16, downsampling=2)
    patched = DiffusersVAE(path, image_size=16, downsampling=2, patch_size=2)
    assert (patched.grid, patched.channels) == ((4, 4), 16)
    torch.testing.assert_close(
        patched.decode(patched.encode(images)), whole.decode(whole.encode(images))
    )


def test_its_weights_belong_to_no_checkpoint(folder):
    latent = DiffusersVAE(folder[0], image_size=16, downsampling=2)
    latent.encode(torch.zeros(1, 3, 16, 16))
    assert latent.state_dict() == {}
    assert list(latent.parameters()) == []


def test_its_identity_is_what_it_computes_with(folder, tmp_path):
    path, vae = folder
    latent = DiffusersVAE(path, image_size=16, downsampling=2)
    identity = latent.identity
    latent.encode(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16))
    assert latent.identity == identity
    vae.save_pretrained(tmp_path / "copy")
    copy = DiffusersVAE(str(tmp_path / "copy"), image_size=16, downsampling=2, scale=0.25)
    assert copy.identity == identity
    other = deepcopy(vae)
    other.decoder.conv_in.bias.data += 1e-3
    other.save_pretrained(tmp_path / "other")
    assert DiffusersVAE(str(tmp_path / "other"), 16, downsampling=2).identity != identity
    assert DiffusersVAE(path, 16, downsampling=2, scale=0.5).identity != identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 20}, r"image_size must be a multiple of downsampling \* patch_size"),
        ({"image_size": 16, "noise": -1.0}, "noise must be 0 or positive, and finite, got -1.0"),
        ({"image_size": 16, "noise": float("nan")}, "noise must be 0 or positive, .* got nan"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusersVAE("anything", **options)


def test_a_folder_without_all_weights_is_refused(folder, tmp_path):
    folder[1].save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = {name: tensor for name, tensor in load_file(file).items() if "conv_in" not in name}
    latent = DiffusersVAE(str(tmp_path), image_size=16, downsampling=2)
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks decoder\.conv_in\.bias \(4 such tensors\)"):
        latent.encode(torch.zeros(1, 3, 16, 16))
    file.unlink()
    with pytest.raises(ValueError, match=r"name must be .* \(Error no file named"):
        latent.encode(torch.zeros(1, 3, 16, 16))


def test_what_cannot_be_loaded_is_named(folder, tmp_path):
    latent = DiffusersVAE(str(tmp_path / "nothing"), image_size=16)
    with pytest.raises(ValueError, match=r"name must be .* AutoencoderKL, got .*nothing"):
        latent.encode(torch.zeros(1, 3, 16, 16))
    other = DiffusersVAE(folder[0], image_size=16, downsampling=4)
    with pytest.raises(ValueError, match=r"which gives \(4, 8, 8\) instead of \(4, 4, 4\)"):
        other.encode(torch.zeros(1, 3, 16, 16))
