from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from pretzel import rng
from pretzel.errors import UserError
from pretzel.latent import Autoencoder, ConvAutoencoder
from pretzel.sequence.document import Document, DocumentBatch, Text, caption_document
from pretzel.training.autoencoder import AutoencoderTraining
from pretzel.training.image_quality import psnr
from pretzel.training.schedule import WarmupCosine
from pretzel.typing import Tensor

Build = Callable[[], ConvAutoencoder]


class Batches:
    """The same batches again and again."""

    def __init__(self, *batches: DocumentBatch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[DocumentBatch]:
        return iter(self.batches)


def batches(images: Tensor) -> Batches:
    """Deal pictures out with their captions, 16 to a batch."""
    documents = (caption_document("a shape"),) * 16
    return Batches(*(DocumentBatch(documents=documents, images=i) for i in images.split(16)))


def training(
    autoencoder: ConvAutoencoder,
    *,
    max_noise: float = 1.0,
    seed: int = 0,
    export_to: Path | None = None,
) -> AutoencoderTraining:
    return AutoencoderTraining(
        autoencoder,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-3),
        schedule=WarmupCosine(warmup_steps=10),
        max_noise=max_noise,
        seed=seed,
        export_to=None if export_to is None else str(export_to),
    )


def trainer(steps: int) -> Trainer:
    return Trainer(
        max_steps=steps,
        check_val_every_n_epoch=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def noised_psnr(autoencoder: ConvAutoencoder, images: Tensor, sigma: float) -> float:
    """Mean PSNR in dB of images decoded from latents with noise of one level."""
    autoencoder.eval()
    with torch.no_grad():
        maps = autoencoder.encode(images)
        noise = torch.randn(maps.shape, generator=rng.stream("test"))
        return psnr(autoencoder.decode(maps + sigma * noise), images).mean().item()


@pytest.fixture(scope="module")
def trained(
    tiny: Build, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[AutoencoderTraining, Path]:
    """A module after 200 steps, and the file it wrote when its training ended."""
    path = tmp_path_factory.mktemp("trained") / "new" / "autoencoder.safetensors"
    module = training(tiny(), export_to=path)
    run = trainer(200)
    run.fit(module, batches(images), batches(images))
    assert run.callback_metrics.keys() == {"train/loss"}
    return module, path


def test_several_processes_must_share_the_statistics_of_a_batch(tiny: Build):
    module = training(tiny())
    module._trainer = SimpleNamespace(world_size=2)
    with pytest.raises(
        UserError, match=r"trainer\.sync_batchnorm must be true with 2 processes, got"
    ):
        module.on_fit_start()
    module.autoencoder.normalize = torch.nn.SyncBatchNorm(4)
    module.on_fit_start()


def test_psnr_is_that_of_the_formula():
    targets = torch.zeros(2, 3, 4, 4)
    decoded = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), -3.0)])
    # error 0.2 of peak 2 is 20 dB; what leaves [-1, 1] is clipped to an error of 1: 6.02 dB
    torch.testing.assert_close(psnr(decoded, targets), torch.tensor([20.0, 6.0206]))


def test_it_learns_to_decode_noised_latents(
    trained: tuple[AutoencoderTraining, Path], autoencoder: ConvAutoencoder, images: Tensor
):
    before = noised_psnr(autoencoder, images, 0.5)
    after = noised_psnr(trained[0].autoencoder, images, 0.5)
    assert after > before + 6


def test_noise_in_training_is_what_makes_the_decoder_withstand_it(
    trained: tuple[AutoencoderTraining, Path], tiny: Build, images: Tensor
):
    def cost(module: AutoencoderTraining) -> float:
        clean, noised = (noised_psnr(module.autoencoder, images, sigma) for sigma in (0.0, 1.0))
        return clean - noised

    without = training(tiny(), max_noise=0.0)
    trainer(80).fit(without, batches(images), batches(images))
    assert cost(trained[0]) < 0.5 * cost(without)


def test_the_file_written_at_the_end_is_what_was_trained(
    trained: tuple[AutoencoderTraining, Path], images: Tensor
):
    module, path = trained
    latent = Autoencoder(weights=str(path), patch_size=2, noise=0.2)
    expected = module.autoencoder.eval().encode(images)
    assert torch.equal(latent.autoencoder.encode(images), expected)
    assert torch.equal(latent.autoencoder.decode(expected), module.autoencoder.decode(expected))


def test_running_statistics_keep_up_with_training(
    trained: tuple[AutoencoderTraining, Path], images: Tensor
):
    maps = trained[0].autoencoder.eval().encode(images)
    torch.testing.assert_close(maps.std((0, 2, 3)), torch.ones(4), rtol=0, atol=0.1)
    torch.testing.assert_close(maps.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=0.1)


def test_equal_seeds_give_equal_weights_and_others_do_not(tiny: Build, images: Tensor):
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))  # the global state must not matter
        module = training(tiny(), seed=seed)
        trainer(3).fit(module, batches(images), batches(images))
        runs.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_every_batch_has_noise_of_its_own(tiny: Build, images: Tensor):
    module = training(tiny())
    seen: list[Tensor] = []
    module.autoencoder.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.configure_optimizers = lambda: None  # type: ignore[method-assign]
    same = batches(images[:16].repeat(4, 1, 1, 1))
    with pytest.warns(UserWarning, match="no optimizer"):
        trainer(4).fit(module, same, same)
    noise = [latents - seen[0] for latents in seen[1:]]
    assert all(difference.abs().mean() > 0.01 for difference in noise)


def test_validation_tells_clean_from_noised(
    trained: tuple[AutoencoderTraining, Path], images: Tensor
):
    module = trained[0]
    (logged,) = trainer(1).validate(module, batches(images), verbose=False)
    assert logged.keys() | {"train/loss"} == module.metric_names()
    assert logged["val/psnr"] == pytest.approx(noised_psnr(module.autoencoder, images, 0.0))
    noised = noised_psnr(module.autoencoder, images, module.max_noise)
    assert logged["val/psnr_noised"] == pytest.approx(noised, abs=0.5)
    assert logged["val/psnr_noised"] < logged["val/psnr"]


def test_an_export_that_cannot_be_written_stops_before_training(
    tiny: Build, images: Tensor, tmp_path: Path
):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "a.safetensors"):
        run = trainer(1)
        with pytest.raises(UserError, match=rf"export_to must name a file.*{path.name}"):
            run.fit(training(tiny(), export_to=path), batches(images), batches(images))
        assert run.global_step == 0


def test_nothing_is_written_by_a_trial_run(tiny: Build, images: Tensor, tmp_path: Path):
    path = tmp_path / "new" / "autoencoder.safetensors"
    run = Trainer(
        fast_dev_run=True,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.fit(training(tiny(), export_to=path), batches(images), batches(images))
    assert not path.parent.exists()


def test_a_batch_without_images_is_refused(tiny: Build):
    text = Document(key="0", segments=(Text(content="a shape"),))
    batch = DocumentBatch(documents=(text,), images=torch.empty(0, 3, 16, 16))
    with pytest.raises(UserError, match="needs some in every batch, got one of 1 documents"):
        trainer(1).fit(training(tiny()), Batches(batch), Batches(batch))


def test_negative_noise_is_refused(tiny: Build):
    with pytest.raises(UserError, match=r"max_noise must be 0 or positive, got -0\.1"):
        training(tiny(), max_noise=-0.1)
