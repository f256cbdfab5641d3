"""Conversations of text and images with one model, side by side, each in one sequence."""

import copy
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Protocol, runtime_checkable

import torch

from pretzel.errors import UserError
from pretzel.generation.images import decode_images
from pretzel.generation.latents import ImageLatents, generate_latents
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import GREEDY, Writing, end_text, write_tokens
from pretzel.latent.generative_model import GenerativeModel
from pretzel.model import Pretzel
from pretzel.sampling.denoisers import Denoiser, NoDenoiser
from pretzel.sampling.guidance import Guidance, NoGuidance
from pretzel.sampling.samplers import Sampler, Sequential
from pretzel.sequence.document import Document, Image, Role, Segment, Text
from pretzel.typing import Float, Int, Tensor

MAX_TOKENS = 64
MAX_LENGTH = 2048


class ConversationBatch:
    """Conversations held side by side, one per batch row, that take their turns together.

    Everything is read once: an answer sees all that stands before it in the caches of both
    streams, and so does an image. Texts follow one another without anything between. A
    conversation does not depend on those beside it.

    Args:
        model: The model.
        keys: Names of the conversations: the noise of image n is that of ``key#n``.
        guidance: How conditional and null predictions of images are mixed; None for not at all.
        sampler: How the positions of images are found; None for one after the other.
        denoiser: What is done about the training noise before an image is shown (the sequence
            keeps what the flow has made); None for nothing.
        writing: How the tokens of text are selected.
        seed: Seed of the noise and of the text.
        max_length: Positions that fit into each; the caches are allocated once.

    Attributes:
        state: The sequences and their caches.
        latents: Those of each image, given or generated, in order.
    """

    def __init__(
        self,
        model: Pretzel,
        keys: Sequence[str],
        *,
        guidance: Guidance | None = None,
        sampler: Sampler | None = None,
        denoiser: Denoiser | None = None,
        writing: Writing = GREEDY,
        seed: int = 0,
        max_length: int = MAX_LENGTH,
    ) -> None:
        self.model = model
        self.keys = list(keys)
        self.guidance = guidance or NoGuidance()
        self.sampler = sampler or Sequential()
        self.denoiser = denoiser or NoDenoiser()
        self.writing = writing
        self.seed = seed
        self.state = GenerationState(model, len(keys), max_length)
        self.latents: list[ImageLatents] = []
        self.segments: list[list[Segment]] = [[] for _ in keys]

    def select(self, rows: Int[Tensor, " k"], keys: Sequence[str]) -> "ConversationBatch":
        """Return conversations that go on from rows, repeats allowed; nothing is read again."""
        selected = copy.copy(self)
        with torch.inference_mode():
            if self.model.interleaving.feeds_vlm:
                self.state.flush()  # once, not in every copy
            selected.state = self.state.select(rows)
            selected.latents = [latents.select(rows) for latents in self.latents]
        selected.keys = list(keys)
        selected.segments = [list(self.segments[row]) for row in rows.tolist()]
        return selected

    def say(self, texts: Sequence[str]) -> None:
        """Add a text to each, which must fit, and is read by whatever comes next."""
        with torch.inference_mode():
            self.state.read_text(texts)
        self._add([Text(content=text) for text in texts])

    def read(self, texts: Sequence[Sequence[Text]]) -> None:
        """Add texts to each, questions and requests as :meth:`say`, answers as if it wrote them."""
        with torch.inference_mode():
            self.state.read_tokens([self.model.packer.ids_behind(own) for own in texts])
        for row, own in zip(self.segments, texts, strict=True):
            row += own

    def show(self, images: Float[Tensor, "b ..."]) -> None:
        """Add a given image to each, in [-1, 1]; its noise is that of training, named by the key.

        Raises:
            UserError: If the interleaving models no image here, or it does not fit.
        """
        with torch.inference_mode():
            x = self.model.encode(images, self._noise("show"))
            self.show_latents(ImageLatents(u=self.model.shallow(x).z, x=x))

    def show_latents(self, latents: ImageLatents) -> None:
        """Add an image to each, given by its latents; errors as in :meth:`show`."""
        with torch.inference_mode():
            self.state.read_image(latents.u, latents.x)
        self.latents.append(latents)
        self._add([Image() for _ in self.keys])

    def generate(self, noise: Float[Tensor, "b n d"] | None = None) -> Float[Tensor, "b ..."]:
        """Generate an image for each that follows from all before, in [-1, 1].

        Of an image that is refused or interrupted nothing is left.

        Args:
            noise: Standard normal noise; None for that named by the keys.

        Raises:
            UserError: If the interleaving models no image here, or it does not fit.
        """
        with self.state.transaction():
            with torch.inference_mode():
                z = self._noise("draw") if noise is None else noise
                latents = generate_latents(self.state, z, self.guidance, self.sampler)
            documents = [
                Document(key=key, segments=(*segments, Image()))
                for key, segments in zip(self.keys, self.segments, strict=True)
            ]
            earlier = [image.x for image in self.latents]
            pixels = decode_images(self.model, documents, latents.x, self.denoiser, earlier)
        self.latents.append(latents)
        self._add([Image() for _ in self.keys])
        return pixels

    def answer(self, max_tokens: int = MAX_TOKENS) -> list[str]:
        """Write a text for each that follows from all before, as :meth:`.Conversation.answer`."""
        with torch.inference_mode():
            columns = list(self.write(max_tokens))
        return self.end_text(torch.stack(columns, dim=1))

    def log_prob(self, text: str) -> Float[Tensor, " b"]:
        """Return the log-probability that each goes on with a text and ends it there, in nats.

        Nothing is added. The text must fit.
        """
        tokens = [*self.model.vlm.encode_text(text), self.model.vlm.special.end_of_text]
        with torch.inference_mode():
            return self.state.text_log_prob(tokens)

    def write(self, max_tokens: int, *, may_begin_image: bool = False) -> Iterator[Tensor]:
        """Write the next text of each, a token at a time; :meth:`end_text` must follow.

        Arguments, yields and errors are those of :func:`~pretzel.generation.writing.write_tokens`.
        """
        return write_tokens(
            self.state,
            max_tokens,
            self.writing,
            keys=self.keys,
            seed=self.seed,
            may_begin_image=may_begin_image,
        )

    def end_text(self, tokens: Int[Tensor, "b t"]) -> list[str]:
        """End the text that is being written, at least one token so far, and return it."""
        special, vlm = self.model.vlm.special, self.model.vlm
        last = tokens[:, -1]
        # No end-of-text stands before an image that the model has begun.
        begins = (tokens == special.begin_of_image).any(dim=1)
        with torch.inference_mode():
            end_text(self.state, begins | (last == special.end_of_text))
        texts = []
        for row, begins_image in zip(tokens.tolist(), begins.tolist(), strict=True):
            end = special.begin_of_image if begins_image else special.end_of_text
            written = tuple(takewhile(end.__ne__, row))
            role: Role = "context" if begins_image else "target"
            texts.append(Text(content=vlm.decode_text(written), role=role, tokens=written))
        self._add(texts)
        return [text.content for text in texts]

    def _noise(self, purpose: str) -> Float[Tensor, "b n d"]:
        names = [f"{key}#{len(self.latents)}" for key in self.keys]
        return self.model.sample_noise(names, self.seed, purpose)

    def _add(self, segments: Sequence[Segment]) -> None:
        for row, segment in zip(self.segments, segments, strict=True):
            row.append(segment)


@runtime_checkable
class SamplingModule(Protocol):
    """A module with a model and what it samples with, such as ``PretzelModule``."""

    pretzel: GenerativeModel
    guidance: Guidance
    sampler: Sampler
    denoiser: Denoiser
    seed: int


def conversations_with(
    module: SamplingModule,
    keys: Sequence[str],
    *,
    writing: Writing = GREEDY,
    seed: int | None = None,
    max_length: int = MAX_LENGTH,
) -> ConversationBatch:
    """Return a :class:`ConversationBatch` with a trained module's model and ways to sample.

    ``seed`` None is the module's.

    Raises:
        UserError: If its model is not a :class:`pretzel.model.Pretzel`.
    """
    return ConversationBatch(
        require_pretzel(module.pretzel),
        keys,
        guidance=module.guidance,
        sampler=module.sampler,
        denoiser=module.denoiser,
        writing=writing,
        seed=module.seed if seed is None else seed,
        max_length=max_length,
    )


def require_pretzel(model: GenerativeModel) -> Pretzel:
    """Return the model; raise a UserError if it is a flow by itself."""
    if not isinstance(model, Pretzel):
        raise UserError(
            f"pretzel must be a model of text and images to converse with, got "
            f"{type(model).__name__}"
        )
    return model
