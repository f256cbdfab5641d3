"""The two shipped stages of a feature autoencoder follow each other, and what comes out is one."""

from functools import partial
from pathlib import Path

import pytest
import torch

from pretzel.cli.fit import main
from pretzel.errors import UserError
from pretzel.files.weights import read_exported
from pretzel.latent import FAE
from pretzel.latent.fae import AttentionBottleneck, FAENetwork, TransformerFeatureDecoder
from pretzel.latent.features import EfficientNetLite0
from pretzel.training import Constant, FeatureAutoencoderTraining

LATENTS = Path(__file__).parents[2] / "ablations" / "latents"


def test_the_shipped_stages_write_what_the_latent_space_reads(tmp_path: Path):
    features, whole = tmp_path / "features.safetensors", tmp_path / "fae.safetensors"
    shorter = {
        "data.init_args.num_val_samples": 24,
        "data.init_args.batch_size": 4,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "trainer.default_root_dir": tmp_path,
        "trainer.logger": "false",
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.accelerator": "cpu",
        "trainer.callbacks": "null",  # tests/callbacks has them
    }
    arguments = [f"--{k}={v}" for k, v in shorter.items()]
    first, second = (str(LATENTS / f"fae_{name}.yaml") for name in ("features", "pixels"))
    ahead = [f"--model.init_args.export_to={features}"]
    # A part of a part can be changed on the command line
    ahead.append("--model.init_args.network.init_args.encoder.init_args.blocks=[10]")
    ahead.append("--model.init_args.stage_weights=null")
    assert main(["fit", "-c", first, *arguments, *ahead]) == 0
    both = [f"--model.init_args.export_to={whole}", f"--model.init_args.features={features}"]
    assert main(["fit", "-c", second, *arguments, *both]) == 0
    latent = FAE(noise=0.3, weights=str(whole))
    # The shipped one is half as large, and all that is measured is kept as it is
    state, _ = read_exported(whole)
    halves = {name for name, tensor in state.items() if tensor.dtype == torch.float16}
    assert halves == {name for name, _ in latent.network.named_parameters()}
    assert all(p.dtype == torch.float32 for p in latent.parameters())
    assert (latent.image_size, latent.grid, latent.channels) == (64, (8, 8), 32)


def stage(weights: list[float] | None) -> FeatureAutoencoderTraining:
    network = FAENetwork(
        EfficientNetLite0(16, 32, (4, 10)),
        partial(AttentionBottleneck, channels=4),
        partial(TransformerFeatureDecoder, width=16, num_layers=1, head_dim=8),
    )
    return FeatureAutoencoderTraining(
        network, torch.optim.AdamW, Constant(), 0.0, 0.3, 0, stage_weights=weights
    )


def test_stages_of_the_encoder_count_by_their_weights():
    assert stage(None).stage_shares == [0.5, 0.5]
    assert stage([1.0, 4.0]).stage_shares == [0.2, 0.8]
    for wrong in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(UserError, match="stage_weights must be 2 positive numbers"):
            stage(wrong)
