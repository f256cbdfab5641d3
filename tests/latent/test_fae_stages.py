"""The two shipped stages of a feature autoencoder follow each other, and what comes out is one."""

from pathlib import Path

from pretzel.cli.fit import main
from pretzel.latent import FAE

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
    assert main(["fit", "-c", first, *arguments, *ahead]) == 0
    both = [f"--model.init_args.export_to={whole}", f"--model.init_args.features={features}"]
    assert main(["fit", "-c", second, *arguments, *both]) == 0
    latent = FAE(noise=0.3, weights=str(whole))
    assert (latent.image_size, latent.grid, latent.channels) == (64, (8, 8), 32)
