from pathlib import Path

from pretzel.cli.fit import main
from pretzel.latent import Autoencoder

STAGE = Path(__file__).parents[2] / "ablations" / "stages" / "autoencoder.yaml"


def test_the_shipped_stage_writes_what_the_latent_space_reads(tmp_path: Path):
    weights = tmp_path / "autoencoder.safetensors"
    shorter = {
        "model.init_args.export_to": weights,
        "model.init_args.autoencoder.init_args.channels": 4,
        "data.init_args.num_val_samples": 8,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "trainer.default_root_dir": tmp_path,
        "trainer.logger": "false",
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.accelerator": "cpu",
    }
    assert main(["fit", "-c", str(STAGE), *(f"--{k}={v}" for k, v in shorter.items())]) == 0
    latent = Autoencoder(weights=str(weights), patch_size=2, noise=0.2)
    assert (latent.image_size, latent.grid, latent.channels) == (64, (8, 8), 16)
    assert weights.stat().st_size < 2**20
