"""Metric of generated spoken digits: word, speaker and manner of a judge, and pitch."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from callbacks.generation_metric import GenerationMetric
from jaxtyping import Bool, Float
from pretzel.media import Medium, Sounds
from torch import Tensor

from pretzel_spoken_digits.judge import LABELS, Judge, class_indices, load_judge, read_caption
from pretzel_spoken_digits.pitch import median_pitch

HIGHEST_OF_MEN = 112.0
"""Pitch, in Hz, that parts the voices of men and women in :data:`.speech.SPEAKERS`."""


@final
class SpokenDigitAccuracy(GenerationMetric):
    """Judge whether sounds say what their prompts ask for, by the voice and in the manner asked.

    ``right`` is the fraction of sounds in which the judge hears all three; ``right_word``,
    ``right_speaker`` and ``right_manner`` say it of each. The judge never rejects and was trained
    on this data; ``right_pitch``, the fraction whose median pitch is on the speaker's side of
    112 Hz, is measured without it. ``sounds_n`` is the number of sounds.

    Args:
        judge: File written by :func:`pretzel_spoken_digits.judge.save_judge`.
    """

    measures: ClassVar[type[Medium]] = Sounds

    def __init__(self, judge: str) -> None:
        self._path = Path(judge)
        self._judge: Judge | None = None
        self.reset()

    def prepare(self, device: torch.device) -> None:
        """Load the judge.

        Raises:
            UserError: If its file cannot be read.
        """
        if self._judge is None:
            self._judge = load_judge(self._path)
        self._judge.to(device)

    def describe(self) -> str:
        """Return what is measured."""
        return (
            f"right, right_word, right_speaker, right_manner: the judge of {self._path}; "
            f"right_pitch: median pitch by autocorrelation, of men below {HIGHEST_OF_MEN:g} Hz"
        )

    def names(self) -> set[str]:
        """Return the names of the values."""
        return {"right", "right_pitch", "sounds_n", *(f"right_{kind}" for kind in LABELS)}

    def accepts(self, prompt: str) -> bool:
        """Return whether the prompt names one word, one speaker and one manner."""
        return read_caption(prompt) is not None

    def reset(self) -> None:
        """Forget all sounds."""
        self._hits: list[Bool[Tensor, "n 4"]] = []

    def update(self, images: Float[Tensor, "n 1 t"], prompts: Sequence[str]) -> None:
        """Take in generated sounds and the prompts they were made from."""
        assert self._judge is not None, "prepare() comes first"
        asked = class_indices([named for named in map(read_caption, prompts) if named])
        heard = self._judge.classes(images).cpu()
        pitch = median_pitch(images[:, 0], self._judge.sample_rate).cpu()
        is_man = asked[:, 1] == LABELS["speaker"].index("man")
        # NaN, a sound without voice, is on neither side
        right_pitch = torch.where(is_man, pitch < HIGHEST_OF_MEN, pitch >= HIGHEST_OF_MEN)
        self._hits.append(torch.cat((heard == asked, right_pitch[:, None]), dim=1))

    def compute(self) -> dict[str, float]:
        """Return the fractions and the number of sounds."""
        if not self._hits:
            return {"sounds_n": 0.0}
        hits = torch.cat(self._hits).double()
        names = [*(f"right_{kind}" for kind in LABELS), "right_pitch"]
        values = dict(zip(names, hits.mean(0).tolist(), strict=True))
        right = hits[:, : len(LABELS)].prod(1).mean().item()
        return {"right": right, **values, "sounds_n": float(len(hits))}
