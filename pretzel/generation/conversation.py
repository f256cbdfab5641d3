"""Conversations of text and images with one model, in one sequence.

Example::

    conversation = Conversation(model, guidance=GaussianMixing(weight=2.0))
    conversation.say("a red circle")
    picture = conversation.draw()
    conversation.say("what shape is it?")
    print(conversation.answer())
    conversation.say("a blue circle")
    picture = conversation.draw()
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from PIL.Image import Image as Picture

from pretzel.errors import UserError
from pretzel.flow.generative_model import GenerativeModel
from pretzel.generation.pictures import pictures
from pretzel.generation.session import Session
from pretzel.generation.token_choice import GREEDY, Writing
from pretzel.latent.image_input import as_pixels
from pretzel.model import Pretzel
from pretzel.sampling.denoisers import Denoiser, NoDenoiser
from pretzel.sampling.guidance import Guidance, NoGuidance
from pretzel.sampling.samplers import Sampler, Sequential, Work
from pretzel.sequence.document import Document, Image, Role, Segment, Text
from pretzel.typing import Float, Tensor

Piece = TypeVar("Piece")
MAX_TOKENS = 64
ROOM = 2048


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        kind: ``say`` or ``answer`` with a text, ``image`` or ``draw`` with a picture.
        text: What was said or answered.
        picture: What was shown or drawn.
    """

    kind: str
    text: str = ""
    picture: Picture | None = None


class Conversation:
    """One sequence of text and images: what is said and shown, drawn and answered.

    Everything is read once: an answer sees all that stands before it in the caches of both
    streams, and so does an image. Texts follow one another without anything between. A text that
    is still being streamed is ended before whatever is asked for next.

    Args:
        model: The model.
        guidance: How conditional and null predictions of images are mixed; None for not at all.
        sampler: How the positions of images are found; None for one after the other.
        denoiser: What is done about the training noise before an image is shown (the sequence
            keeps what the flow has made); None for nothing.
        writing: How the tokens of text are chosen.
        seed: Seed of the noise and of the text.
        key: Name of the conversation: the noise of its image n is that of ``key#n``.
        room: Positions that fit into it; the caches are allocated once.

    Attributes:
        turns: What has been said, shown, drawn and answered so far.
        work: Network evaluations of each image drawn, by blocks of the flow.
    """

    def __init__(
        self,
        model: Pretzel,
        *,
        guidance: Guidance | None = None,
        sampler: Sampler | None = None,
        denoiser: Denoiser | None = None,
        writing: Writing = GREEDY,
        seed: int = 0,
        key: str = "",
        room: int = ROOM,
    ) -> None:
        self.model = model
        self.guidance = guidance or NoGuidance()
        self.sampler = sampler or Sequential()
        self.denoiser = denoiser or NoDenoiser()
        self.writing = writing
        self.seed = seed
        self.key = key
        self.turns: list[Turn] = []
        self.work: list[tuple[Work, ...]] = []
        self._session = Session(model, 1, room, keys=[key], seed=seed)
        self._segments: list[Segment] = []
        self._latents: list[Tensor] = []
        self._going: Generator[object, None, object] | None = None  # what is being written

    def fork(self, key: str | None = None) -> "Conversation":
        """Return a conversation that goes on from here by itself; nothing is read again.

        Args:
            key: Its name; None for that of this one.
        """
        self._end_going()
        key = self.key if key is None else key
        other = Conversation(
            self.model,
            guidance=self.guidance,
            sampler=self.sampler,
            denoiser=self.denoiser,
            writing=self.writing,
            seed=self.seed,
            key=key,
            room=1,
        )
        with torch.inference_mode():
            if self.model.interleaving.feeds_vlm:
                self._session.flush()  # once, not in every fork
            first = torch.zeros(1, dtype=torch.long, device=self.model.device)
            other._session = self._session.select(first, [key])
        other.turns, other.work = list(self.turns), list(self.work)
        other._segments, other._latents = list(self._segments), list(self._latents)
        return other

    def say(self, text: str) -> None:
        """Add a text, which is read by whatever comes next.

        Raises:
            UserError: If there is no room.
        """
        self._end_going()
        with torch.inference_mode():
            self._session.read_text([text])
        self._segments.append(Text(content=text))
        self.turns.append(Turn(kind="say", text=text))

    def show(self, picture: Picture) -> None:
        """Add a given picture, cropped and resized as in training.

        Its noise is that of training, named by the conversation.

        Raises:
            UserError: If the interleaving models no image here.
        """
        pixels = as_pixels([picture], self.model.latent.image_size)
        pixels = pixels.to(self.model.device, self.model.dtype)
        self._end_going()
        key = f"{self.key}#{len(self._latents)}"
        with torch.inference_mode():
            x = self.model.encode(pixels, self.model.sample_noise([key], self.seed, "show"))
            self._session.read_image(self.model.shallow(x).z, x)
        self._add_image(x, Turn(kind="image", picture=picture))

    def draw(self) -> Picture:
        """Draw an image that follows from all before.

        Raises:
            UserError: If the interleaving models no image here, or there is no room.
        """
        self._end_going()
        return self._draw()

    def _draw(self) -> Picture:
        key = f"{self.key}#{len(self._latents)}"
        with self._session.undone_on_error():
            with torch.inference_mode():
                z = self.model.sample_noise([key], self.seed, "draw")
                drawn = self._session.draw(z, self.guidance, self.sampler)
            clean = self.denoiser(drawn.x, self.model.latent.noise, self._log_prob)
            with torch.inference_mode():
                picture = pictures(self.model.latent.decode(clean).clamp(-1, 1))[0]
        self.work.append(drawn.work)
        self._add_image(drawn.x, Turn(kind="draw", picture=picture))
        return picture

    def answer(self, max_tokens: int = MAX_TOKENS) -> str:
        """Write a text that follows from all before, and return it whole.

        Args:
            max_tokens: A text that has not ended by then is cut and ended.

        Raises:
            UserError: If the model writes no text, nothing stands before it, there is no room, or
                no tokens are asked for.
        """
        for _ in self.stream(max_tokens):
            pass
        return self.turns[-1].text

    def stream(self, max_tokens: int = MAX_TOKENS) -> Iterator[str]:
        """Write a text, piece by piece as its tokens come; as :meth:`answer` otherwise.

        A text that is not asked for to its end is ended where it is.
        """
        return self._alone(self._stream(max_tokens, may_draw=False))

    def continue_freely(
        self, max_tokens: int = MAX_TOKENS, max_images: int = 1
    ) -> Iterator[str | Picture]:
        """Go on until the model ends its text, with images where it begins them.

        Args:
            max_tokens: Tokens in all.
            max_images: Images in all; then no more can be begun.

        Yields:
            Pieces of text and whole pictures.

        Raises:
            UserError: If the model writes no text, nothing stands before it, there is no room, or
                no tokens are asked for.
        """
        return self._alone(self._continue(max_tokens, max_images))

    def _continue(self, max_tokens: int, max_images: int) -> Generator[str | Picture, None, None]:
        while True:
            written, begins = yield from self._stream(max_tokens, may_draw=max_images > 0)
            if not begins:
                return
            yield self._draw()
            max_tokens -= written
            max_images -= 1
            if max_tokens < 1:
                return

    def _alone(self, pieces: Generator[Piece, None, object]) -> Iterator[Piece]:
        self._end_going()
        self._going = pieces
        yield from pieces

    def _end_going(self) -> None:
        if self._going is not None:
            self._going.close()
            self._going = None

    def _stream(self, max_tokens: int, *, may_draw: bool) -> Generator[str, None, tuple[int, bool]]:
        """Write a text; return its tokens' number, and whether begin-of-image ended it."""
        vlm = self.model.vlm
        writer = self._session.write(max_tokens, self.writing, may_draw=may_draw)
        tokens: list[int] = []
        shown = ""
        last = None
        written = 0
        try:
            while True:
                # Not around the yield: it would reach into the code of whoever reads this.
                with torch.inference_mode():
                    token = next(writer, None)
                if token is None:
                    break
                last = int(token)
                written += 1
                if last in (vlm.special.end_of_text, vlm.special.begin_of_image):
                    continue
                tokens.append(last)
                text = vlm.decode_text(tokens)
                # Half a character, or a word that is respelt, waits for what follows.
                if text.startswith(shown) and not text.endswith("\ufffd") and text != shown:
                    piece, shown = text[len(shown) :], text
                    yield piece
        finally:
            if last is not None:
                begins = may_draw and last == vlm.special.begin_of_image
                ended = torch.tensor([begins or last == vlm.special.end_of_text])
                with torch.inference_mode():
                    self._session.end_text(ended.to(self.model.device))
                text = vlm.decode_text(tokens)
                # No end-of-text stands before an image that the model has begun.
                role: Role = "context" if begins else "target"
                self._segments.append(Text(content=text, role=role, tokens=tuple(tokens)))
                if text or not may_draw:
                    self.turns.append(Turn(kind="answer", text=text))
        if text != shown and text.startswith(shown):
            yield text[len(shown) :]
        return written, begins

    def _add_image(self, x: Tensor, turn: Turn) -> None:
        self._segments.append(Image())
        self._latents.append(x)
        self.turns.append(turn)

    def _log_prob(self, point: Float[Tensor, "1 n d"]) -> Float[Tensor, " 1"]:
        """Return the log-density of an image given what stands before it, as training has it."""
        document = Document(key=self.key, segments=(*self._segments, Image()))
        before = [latents.clone() for latents in self._latents]  # made under inference mode
        return self.model.score([document], torch.cat([*before, point])).log_prob[-1:]


@runtime_checkable
class Trained(Protocol):
    """A module with a model and what it samples with, such as ``PretzelModule``."""

    pretzel: GenerativeModel
    guidance: Guidance
    sampler: Sampler
    denoiser: Denoiser
    seed: int


def conversation_with(
    module: Trained,
    *,
    writing: Writing = GREEDY,
    seed: int | None = None,
    key: str = "",
    room: int = ROOM,
) -> Conversation:
    """Return a conversation with a trained module, by its guidance, sampler and denoiser.

    Args:
        module: The module.
        writing: How the tokens of text are chosen.
        seed: Seed of noise and text; None for the module's.
        key: Name of the conversation.
        room: Positions that fit into it.

    Raises:
        UserError: If its model is not a :class:`pretzel.model.Pretzel`.
    """
    return Conversation(
        require_pretzel(module.pretzel),
        guidance=module.guidance,
        sampler=module.sampler,
        denoiser=module.denoiser,
        writing=writing,
        seed=module.seed if seed is None else seed,
        key=key,
        room=room,
    )


def require_pretzel(model: GenerativeModel) -> Pretzel:
    """Return the model if it is a Pretzel.

    Raises:
        UserError: If it is a flow by itself.
    """
    if not isinstance(model, Pretzel):
        raise UserError(
            f"pretzel must be a model of text and images to converse with, got "
            f"{type(model).__name__}"
        )
    return model
