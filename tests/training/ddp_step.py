"""One optimizer step of each training module, whose batch is dealt out to the processes."""

from functools import partial

import torch
from lightning.pytorch import Trainer
from tiny import caption_batch, joined, perturb, question_batch, tiny_module
from torch.utils.data import DataLoader

from callbacks import JudgeTraining
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.sequence.document import Document, DocumentBatch, Text
from pretzel.training import Constant, TinyVLMPretraining

WORDS = [("what color is the shape?", "red"), ("is there a circle?", "no")]


def uneven() -> list[DocumentBatch]:
    """Return five documents with images, and two of text alone with other numbers of tokens."""
    text = tuple(
        Document(key=q, segments=(Text(content=q), Text(content=a, role="target")))
        for q, a in WORDS
    )
    captions = caption_batch("a red circle", "a shape", "a teal triangle")
    images = torch.zeros(0, 3, 8, 8)
    return [joined(captions, question_batch(*WORDS)), DocumentBatch(documents=text, images=images)]


def pictures(numbers: tuple[int, int]) -> list[DocumentBatch]:
    """Return captioned pictures of one colour, which no augmentation changes."""
    captions = ("a red circle", "a shape", "a blue shape", "a triangle")
    batches = []
    for number in numbers:
        batch = caption_batch(*captions[:number])
        images = torch.linspace(-1, 1, 3 * number).view(number, 3, 1, 1).expand(-1, 3, 32, 32)
        batches.append(DocumentBatch(documents=batch.documents, images=images))
    return batches


def pretzel_module(micro_batch_size=None, pack_length=None):
    module = tiny_module(
        noise=0.0,
        latent_norm_penalty=0.1,
        denoiser=LearnedDenoiser(width=8, num_blocks=1),
        micro_batch_size=micro_batch_size,
    )
    module.pretzel.pack_length = pack_length
    return module


def vlm_module():
    sgd = partial(torch.optim.SGD, lr=0.05)
    return TinyVLMPretraining(
        sgd, Constant(), hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16,
        image_size=8, max_noise=0.0,
    )  # fmt: skip


def judge_module():
    module = JudgeTraining(noise=0.0)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.05)
    return module


MODULES = {
    "padded": (pretzel_module, uneven),
    "packed": (partial(pretzel_module, pack_length=40), uneven),
    "vlm": (vlm_module, uneven),
    "judge": (judge_module, partial(pictures, (3, 1))),
}


def step(module, batches: list[DocumentBatch], devices: int, **settings) -> dict:
    """Return the weights after a step on a batch for each process, and the loss."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = module()
    perturb(module)
    trainer = Trainer(
        max_steps=1,
        devices=devices,
        accelerator="cpu",
        strategy="ddp_fork" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=devices > 1,  # deals one batch to each process
        **settings,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))
    assert trainer.world_size == devices
    return {"loss": trainer.callback_metrics["train/loss"], **module.state_dict()}


def save_steps_of_two(output: str) -> None:
    """Write the steps of all modules on two processes.

    Where a gradient has been computed, processes that are forked can compute none.
    """
    steps = {name: step(module, batches(), 2) for name, (module, batches) in MODULES.items()}
    small = partial(pretzel_module, micro_batch_size=3)
    steps["micro"] = step(small, uneven(), 2, gradient_clip_val=0.5)
    torch.save(steps, output)
