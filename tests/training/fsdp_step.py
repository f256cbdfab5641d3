"""A training whose weights are dealt out to two processes, which meet once."""

import os
from functools import partial
from pathlib import Path

import torch
from ddp_step import uneven
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from tiny import perturb, tiny_module
from torch.utils.data import DataLoader

from callbacks import EMAWeightAveraging
from pretzel.errors import UserError
from pretzel.interleave import Stacked
from pretzel.interleave.skips import GatedSkip
from pretzel.sampling.denoisers import ScoreDenoiser
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.training import MuonAdamW, TextStates

SIZES = {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False}
REFUSED = {  # arguments of the module and of the strategy
    "tensor_parallel_size": ({}, {"data_parallel_size": 1, "tensor_parallel_size": 2}),
    "save_distributed_checkpoint": ({}, {"save_distributed_checkpoint": True}),
    "micro_batch_size": ({"micro_batch_size": 3}, {}),
    "denoiser": ({"denoiser": LearnedDenoiser(width=8, num_blocks=1)}, {}),
    "compile": ({}, {}),  # which is set below
    "MuonAdamW": ({"optimizer": MuonAdamW}, {}),
    "text_states": ({"text_states": TextStates(), "text_weight": 0.0, "trains": ["shallow"]}, {}),
    "gate": ({"interleaving": partial(Stacked, skips=GatedSkip)}, {}),
}


class Samples(Callback):
    """Generates images behind each validation, another number of them in each process."""

    def __init__(self):
        self.images = []

    def on_validation_epoch_end(self, trainer, pl_module):
        prompts = ["a red circle", "a blue shape"][: 2 - trainer.global_rank]
        self.images.append(pl_module.sample(prompts, stream_key=("x",)))


def make_module(**arguments):
    settings = {
        "noise": 0.0,
        "latent_norm_penalty": 0.1,
        "denoiser": ScoreDenoiser(),
        "optimizer": partial(torch.optim.AdamW, eps=1e-2),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = tiny_module(**settings | arguments)
    perturb(module)
    return module


def train(module, batches, folder: Path, strategy="auto", devices=1, checkpoint=None):
    """Train two steps with averages, clipping and validations; return the samples of these."""
    samples = Samples()
    saves = ModelCheckpoint(
        dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, monitor=None
    )
    trainer = Trainer(
        max_steps=2,
        devices=devices,
        accelerator="cpu",
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=1,
        gradient_clip_val=0.5,
        callbacks=[samples, EMAWeightAveraging(decay=0.5), saves],
    )
    loaders = [DataLoader(given, batch_size=None) for given in (batches * 2, batches)]
    trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
    assert trainer.world_size == devices
    final = folder / "final.ckpt"
    trainer.save_checkpoint(final, weights_only=True)
    trainer.validate(module, loaders[1], ckpt_path=final, weights_only=True, verbose=False)
    return samples.images


def run_rank(rank: int, port: int, folder: str) -> None:
    """Be one of two processes, as ``torchrun`` starts them."""
    of_process = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "MASTER_PORT": port}
    of_all = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in (of_process | of_all).items()})
    root = Path(folder)

    def run(name, checkpoint=None, module=None, **strategy):
        module = module or make_module()
        sizes = ModelParallelStrategy(**SIZES | strategy)
        images = train(module, uneven(), root / name, sizes, 2, checkpoint)
        return images, sum(weight.to_local().numel() for weight in module._trainable().values())

    said = {}
    for name, (arguments, strategy) in REFUSED.items():
        module = make_module(**arguments)
        module.pretzel.deep.conditioner.compiles = name == "compile"
        try:
            run("refused", module=module, **strategy)
        except UserError as error:
            said[name] = str(error)
    images, num_weights = run("dealt")
    run("resumed", root / "dealt" / "step=1.ckpt")
    try:
        run("refused", root / "one" / "step=1.ckpt")
    except UserError as error:
        said["ckpt_path"] = str(error)
    torch.save({"said": said, "images": images, "n": num_weights}, root / f"rank{rank}.pt")
