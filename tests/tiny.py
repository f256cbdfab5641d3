"""A Pretzel small enough for tests: 8 px images, 4 positions, the real tiny VLM."""

from functools import partial

import torch
from lightning.pytorch import Trainer

from pretzel.flow import (
    AFBlock,
    AffineSoftplus,
    CausalTransformer,
    DeepStream,
    ExplicitSplit,
    Flip,
    Raster,
)
from pretzel.interleave import Stacked
from pretzel.latent import Pixels
from pretzel.model import Pretzel
from pretzel.sampling.denoisers import NoDenoiser
from pretzel.sampling.guidance import GaussianMixing
from pretzel.sampling.samplers import Sequential
from pretzel.sequence.document import DocumentBatch, caption_document, question_document
from pretzel.training.module import PretzelModule
from pretzel.training.schedule import Constant
from pretzel.vlm.tiny import TinyVLM

TRANSFORMER = partial(CausalTransformer, width=16, head_dim=8)


def tiny_pretzel(interleaving=Stacked, noise=0.05, deep=1) -> Pretzel:
    return Pretzel(
        latent=Pixels(image_size=8, patch_size=4, noise=noise),
        split=ExplicitSplit(shallow=[1, 1], deep=deep),
        permutations=[Raster(), Flip()],
        shallow=partial(AFBlock, transform=AffineSoftplus(), conditioner=TRANSFORMER),
        deep=partial(DeepStream, transform=AffineSoftplus(), conditioner=TRANSFORMER),
        vlm=TinyVLM(),
        interleaving=interleaving,
    )


def tiny_module(interleaving=Stacked, noise=0.05, optimizer=torch.optim.SGD, **kwargs):
    return PretzelModule(
        pretzel=tiny_pretzel(interleaving, noise),
        text_weight=kwargs.pop("text_weight", 0.5),
        optimizer=partial(optimizer, lr=0.05),
        schedule=Constant(),
        guidance=GaussianMixing(weight=1.0),
        denoiser=kwargs.pop("denoiser", NoDenoiser()),
        sampler=kwargs.pop("sampler", Sequential()),
        **kwargs,
    )


def perturb(module: torch.nn.Module, scale: float = 0.1, seed: int = 0) -> None:
    """Move every trainable parameter: at zero initialisation many laws hold by accident."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.add_(scale * noise.to(parameter))


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def caption_batch(*captions: str, seed: int = 0) -> DocumentBatch:
    documents = tuple(caption_document(c, key=f"c{i}") for i, c in enumerate(captions))
    return DocumentBatch(documents=documents, images=images(len(captions), seed))


def question_batch(*pairs: tuple[str, str], seed: int = 1) -> DocumentBatch:
    documents = tuple(question_document([pair], key=f"q{i}") for i, pair in enumerate(pairs))
    return DocumentBatch(documents=documents, images=images(len(pairs), seed))


def joined(*batches: DocumentBatch) -> DocumentBatch:
    return DocumentBatch(
        documents=tuple(d for batch in batches for d in batch.documents),
        images=torch.cat([batch.images for batch in batches]),
    )


def batches(count):
    return [
        joined(
            caption_batch("a red circle", "a shape", seed=i),
            question_batch(("what color is the shape?", "red"), seed=i),
        )
        for i in range(count)
    ]


def fit(module, tmp_path, steps, given=None, settings=None, **kwargs):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        **(settings or {}),
    )
    # One batch, again and again: which batch comes next after a resume is the datamodule's to say.
    loader = torch.utils.data.DataLoader(given or batches(1), batch_size=None)
    trainer.fit(module, loader, weights_only=True, **kwargs)
    assert {name for name in trainer.callback_metrics if "train" in name} <= module.metric_names()
    return trainer
