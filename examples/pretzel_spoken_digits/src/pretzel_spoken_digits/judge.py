"""A small classifier of what is said, by whom and how, trained on the training sounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.weights import read_exported, save_exported
from pretzel.rng import stream
from pretzel.typing import Float, Int, Tensor
from torch import nn
from torch.nn.functional import cross_entropy

from pretzel_spoken_digits.mel import MelSpectrogram
from pretzel_spoken_digits.speech import SPEAKERS, SPEEDS, WORDS

LABELS: dict[str, tuple[str, ...]] = {
    "word": WORDS,
    "speaker": tuple(SPEAKERS),
    "manner": tuple(SPEEDS),
}
"""Words of a caption by what they are about."""

_SAMPLE_RATE = "pretzel_spoken_digits.sample_rate"
_BATCH = 32


def read_caption(caption: str) -> tuple[str, str, str] | None:
    """Return word, speaker and manner that a caption names, or None if not one of each."""
    words = caption.replace(",", " ").split()
    named = [[label for label in labels if label in words] for labels in LABELS.values()]
    if any(len(labels) != 1 for labels in named):
        return None
    (word,), (speaker,), (manner,) = named
    return word, speaker, manner


@final
class Judge(nn.Module):
    """Convolutions over log-mel spectra, with one head for each of :data:`LABELS`.

    It never rejects: noise, too, gets a word.

    Args:
        sample_rate: Samples a second of the sounds.
        width: Channels of the first layer.
    """

    def __init__(self, sample_rate: int, width: int = 32) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv1d(inputs, outputs, 5, stride=2, padding=2),
                nn.GroupNorm(8, outputs),
                nn.SiLU(),
            )

        self.sample_rate = sample_rate
        self.mel = MelSpectrogram(sample_rate, bands=40, window=512, hop=128)
        wide = 2 * width
        self.trunk = nn.Sequential(block(40, width), block(width, wide), block(wide, wide))
        self.heads = nn.ModuleList(nn.Linear(2 * wide, len(labels)) for labels in LABELS.values())

    def forward(self, sounds: Float[Tensor, "m 1 t"]) -> list[Float[Tensor, "m _"]]:
        """Return logits of each of :data:`LABELS`."""
        maps = self.trunk(self.mel(sounds[:, 0]).transpose(1, 2))
        features = torch.cat((maps.mean(2), maps.amax(2)), dim=1)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def classes(self, sounds: Float[Tensor, "m 1 t"]) -> Int[Tensor, "m 3"]:
        """Return the likeliest class of each of :data:`LABELS`."""
        return torch.stack([logits.argmax(-1) for logits in self(sounds)], dim=1)


def class_indices(labels: Sequence[tuple[str, str, str]]) -> Int[Tensor, "m 3"]:
    """Return the classes of words, speakers and manners."""
    kinds = LABELS.values()
    rows = [[kind.index(label) for kind, label in zip(kinds, row, strict=True)] for row in labels]
    return torch.tensor(rows)


def train_judge(
    sounds: Float[Tensor, "m t"], truth: Int[Tensor, "m 3"], sample_rate: int, *, steps: int
) -> Judge:
    """Return a judge of these sounds.

    They are made louder, quieter and noisier at random: it must also hear what a flow generates.
    """
    generator = stream("spoken digits", "judge")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(sample_rate)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    for _ in range(steps):
        rows = torch.randint(len(sounds), (_BATCH,), generator=generator)
        level = torch.rand(_BATCH, 1, 1, generator=generator)
        noise = torch.randn(_BATCH, 1, sounds.shape[1], generator=generator)
        batch = sounds[rows, None] * (0.5 + level) + 0.01 * level**2 * noise
        losses = [
            cross_entropy(logits, classes)
            for logits, classes in zip(judge(batch), truth[rows].T, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    return judge.requires_grad_(False).eval()


def save_judge(judge: Judge, path: Path) -> None:
    """Write the weights of a judge."""
    state = {name: value.contiguous() for name, value in judge.state_dict().items()}
    with whole_file(path) as partial:
        save_exported(state, partial, {_SAMPLE_RATE: str(judge.sample_rate)})


def load_judge(path: Path) -> Judge:
    """Return a judge, frozen.

    Raises:
        UserError: If the file is missing or holds no judge.
    """
    state, metadata = read_exported(path)
    try:
        judge = Judge(int(metadata[_SAMPLE_RATE]))
        judge.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} must hold a judge of spoken digits: {error}") from error
    return judge.requires_grad_(False).eval()
