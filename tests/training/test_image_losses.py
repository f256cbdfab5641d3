"""Losses of images: zero where images agree, and each side of the adversarial one trains alone."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision

from pretzel.errors import UserError
from pretzel.latent.fae import ConvPixelDecoder
from pretzel.training import (
    AbsoluteError,
    AdversarialLoss,
    Constant,
    PerceptualDistance,
    SquaredError,
)
from pretzel.training.fae_pixels import PixelDecoderTraining
from pretzel.typing import Tensor


def pair() -> tuple[Tensor, Tensor]:
    images, targets = torch.rand(2, 3, 3, 64, 64) * 2 - 1
    return images.requires_grad_(), targets


def test_pixel_errors_are_means_over_pixels():
    images, targets = pair()
    difference = (images - targets).flatten(1)
    torch.testing.assert_close(AbsoluteError()(images, targets), difference.abs().mean(1))
    torch.testing.assert_close(SquaredError()(images, targets), difference.square().mean(1))


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the form of torchvision's, untrained."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


def test_lpips_takes_local_weights(alexnet: Path):
    loss = PerceptualDistance(net="alex", weights=str(alexnet))
    images, targets = pair()
    state = torch.get_rng_state()
    distance = loss(images, targets)
    assert torch.equal(torch.get_rng_state(), state)
    assert distance.shape == (3,)
    assert float(distance.detach().min()) > 0
    assert float(loss(targets, targets).abs().max()) == 0
    distance.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    first = loss._network.net.slice1[0].weight
    expected = torch.load(alexnet, weights_only=True)["features.0.weight"]
    assert torch.equal(first, expected)
    assert list(loss.parameters()) == []  # no optimizer and no checkpoint has them


def test_wrong_weights_of_lpips_are_named(alexnet: Path, tmp_path: Path):
    images, targets = pair()
    with pytest.raises(UserError, match="weights must name a file, got nowhere"):
        PerceptualDistance(net="alex", weights="nowhere")(images, targets)
    with pytest.raises(UserError, match="must be of the configured architecture"):
        PerceptualDistance(net="vgg", weights=str(alexnet))(images, targets)


def test_each_side_of_the_adversarial_loss_trains_alone():
    loss = AdversarialLoss(width=8, num_layers=2)
    images, targets = pair()
    loss(images, targets).sum().backward()
    own = [p.grad.clone() for p in loss.parameters()]
    # by hand: the discriminator's loss of fixed images, and minus the score of a fixed one
    fixed, moving = images.detach(), images.detach().clone().requires_grad_()
    loss.zero_grad()
    d = loss.discriminator
    hinge = (1 - d(targets)).relu() + (1 + d(fixed)).relu()
    hinge.mean(dim=(1, 2, 3)).sum().backward()
    for gradient, parameter in zip(own, loss.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    (-d(moving)).mean(dim=(1, 2, 3)).sum().backward()
    torch.testing.assert_close(images.grad, moving.grad)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_must_be_positive(weight: float):
    for loss in (AbsoluteError, SquaredError, PerceptualDistance, AdversarialLoss):
        with pytest.raises(UserError, match="weight must be positive and finite"):
            loss(weight)


@pytest.mark.parametrize(
    ("make_loss", "message"),
    [
        (AbsoluteError, "features must name the file of the first stage .* nope"),
        (
            partial(AdversarialLoss, start_step=5),
            "losses must name .* from step 0, got .'AdversarialLoss'.",
        ),
    ],
)
def test_what_the_second_stage_of_an_fae_cannot_train_on_is_named(make_loss, message):
    with pytest.raises(UserError, match=message):
        PixelDecoderTraining(
            features="nope",
            pixel_decoder=partial(ConvPixelDecoder, widths=(16, 8), num_blocks=1),
            losses=[make_loss()],
            optimizer=torch.optim.SGD,
            schedule=Constant(),
            feature_noise=0.4,
            feature_share=0.5,
            max_noise=0.5,
            seed=0,
        )
