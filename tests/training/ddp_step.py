"""Run by test_ddp.py: one optimizer step on two unlike batches, on one process or two.

python ddp_step.py DEVICES OUTPUT
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny import caption_batch, joined, perturb, question_batch, tiny_module

from pretzel.sequence.document import (
    Document,
    DocumentBatch,
    Text,
)


def batches() -> list[DocumentBatch]:
    """Return an image batch without targets, and a text batch without images."""
    words = [("what color is the shape?", "red"), ("is there a circle?", "no")]
    text = tuple(
        Document(key=q, segments=(Text(content=q), Text(content=a, role="target")))
        for q, a in words
    )
    return [
        joined(caption_batch("a red circle", "a shape", "a teal triangle"), question_batch(*words)),
        DocumentBatch(documents=text, images=torch.zeros(0, 3, 8, 8)),
    ]


class Dealt(torch.utils.data.Dataset):
    """Two batches; a distributed sampler gives one to each process."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def main(devices: int, output: str) -> None:
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    module = tiny_module(noise=0.0)
    perturb(module)
    items = batches() if devices == 2 else [joined(*batches())]
    loader = torch.utils.data.DataLoader(Dealt(items), batch_size=None)
    trainer = Trainer(
        max_steps=1,
        devices=devices,
        accelerator="cpu",
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=devices > 1,
    )
    trainer.fit(module, loader)
    if trainer.is_global_zero:
        torch.save(
            {
                "state": module.state_dict(),
                "loss": trainer.callback_metrics["train/loss"],
                "world": trainer.world_size,
            },
            output,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
