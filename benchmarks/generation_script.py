"""A conversation of texts and images in one sequence."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from pretzel.generation.deep_inversion import DeepInversion
from pretzel.generation.latents import generate_latents
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import Writing, end_text, write_tokens
from pretzel.model import Pretzel
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import Inversion
from pretzel.sampling.samplers import Sequential, Work
from pretzel.typing import Float, Int, Tensor

QUESTION, CAPTION = "what shape is it?", "a small red circle"


@dataclass(frozen=True, kw_only=True)
class Unending(Writing):
    """The likeliest token that does not end the text, so that all texts are equally long.

    Attributes:
        end: End-of-text.
    """

    end: int

    def choose(
        self, logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"] | None = None
    ) -> Int[Tensor, " b"]:
        """Return the likeliest of the others."""
        ended = torch.tensor([self.end], device=logits.device)
        return super().choose(logits.index_fill(-1, ended, -torch.inf), uniform)


@dataclass(frozen=True, kw_only=True)
class Script:
    """A conversation: turns of a question, an answer, a caption and an image.

    Attributes:
        turns: Number of turns.
        tokens: Tokens of an answer, end-of-text not counted.
        guidance: Guidance of the images.
    """

    turns: int
    tokens: int
    guidance: Guidance

    def room(self, model: Pretzel) -> int:
        """Return the positions of the whole sequence."""
        read = sum(len(model.vlm.encode_text(text)) for text in (QUESTION, CAPTION))
        # end-of-text; begin- and end-of-image
        return self.turns * (read + self.tokens + model.latent.num_positions + 3)


@dataclass(kw_only=True)
class Trace:
    """CPU seconds of a conversation.

    Attributes:
        turns: Each turn, the shallow flow included.
        first_token: Of each answer, from when it was asked for until its first token.
        first_position: Of each image, until its first position.
        encoding: Of these, encoding anew what had been encoded before, for each answer and each
            image; empty where that is not done.
    """

    turns: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    first_position: list[float] = field(default_factory=list)
    encoding: list[float] = field(default_factory=list)


class UntilFirst(Sequential):
    """One position after the other; the clock is read behind the first.

    Attributes:
        at: CPU time when the deep stream had its first position.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def solve(self, inversion: Inversion, block: int) -> Work:
        """Step through the positions."""
        n = inversion.num_positions
        for index in range(n):
            inversion.step(index)
            if index == 0 and isinstance(inversion, DeepInversion):
                self.at = time.process_time()
        return Work(evaluations=n, provisional=0, positions=n)


def noise(model: Pretzel, turn: int) -> Float[Tensor, "1 n d"]:
    """Return the noise of an image."""
    generator = torch.Generator().manual_seed(turn)
    shape = (1, model.latent.num_positions, model.latent.channels)
    return torch.randn(shape, generator=generator).to(model.device, model.dtype)


def hold(state: GenerationState, script: Script, turn: int, trace: Trace) -> Sequence[Tensor]:
    """Hold one turn; return its tokens and latents."""
    model = state.model
    num_tokens = model.vlm.vocab_size + model.vlm.num_new_tokens
    writing = Unending(end=model.vlm.special.end_of_text)
    parts: list[Tensor] = []
    begin = time.process_time()
    state.read_text([QUESTION])
    began = time.process_time()
    for token in write_tokens(state, script.tokens, writing):
        if not parts:
            trace.first_token.append(time.process_time() - began)
        parts.append(F.one_hot(token, num_tokens))
    end_text(state, torch.tensor([False]))
    state.read_text([CAPTION])
    sampler, began = UntilFirst(), time.process_time()
    drawn = generate_latents(state, noise(model, turn), script.guidance, sampler)
    trace.first_position.append(sampler.at - began)
    trace.turns.append(time.process_time() - begin)
    return [*parts, drawn.u, drawn.x]


def converse(state: GenerationState, script: Script) -> tuple[Float[Tensor, " k"], Trace]:
    """Hold the whole conversation.

    Returns:
        All tokens and latents, and what they took.
    """
    trace = Trace()
    parts: list[Tensor] = []
    with torch.inference_mode():
        for turn in range(script.turns):
            parts += hold(state, script, turn, trace)
    return torch.cat([part.flatten().float() for part in parts]), trace
