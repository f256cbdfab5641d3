"""A model of text and images as Python code uses it: pictures in, pictures and text out."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch

from pretzel.errors import UserError
from pretzel.generation.answers import answer_by_key
from pretzel.generation.conversation import Conversation
from pretzel.generation.conversation_batch import conversations_with, require_pretzel
from pretzel.generation.documents import last_images, require_edits
from pretzel.latent.generative_model import GenerativeModel
from pretzel.media.base import Medium
from pretzel.media.integers import content_key
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import GaussianMixing, Guidance, NoGuidance
from pretzel.sampling.inversion import check_guided
from pretzel.sampling.samplers import Sampler
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, caption_document
from pretzel.training.module import PretzelModule
from pretzel.typing import Float, Tensor

T = TypeVar("T")
Images = Any
"""One image or several, of any size: pictures, tensors, paths, or a tensor of a whole batch; of
a model of another medium, objects of that (:class:`pretzel.media.Medium`)."""


@dataclass(kw_only=True)
class _Sampling:
    """A model, and how it samples."""

    pretzel: GenerativeModel
    guidance: Guidance
    sampler: Sampler
    denoiser: Denoiser
    seed: int


class TextImageModel:
    """A model that generates images, answers questions about them and tells how likely they are.

    :func:`pretzel.load` returns trained ones, :func:`pretzel.build` untrained ones. Images may have
    any size: they are cropped and resized as in training. Nothing depends on the batch that an
    image or a question is part of.

    Example::

        model = pretzel.load("runs/quickstart/stacked/seed0")
        pictures = model.generate(["a red circle", "a teal triangle"], seed=0, guidance=2.0)
        answers = model.ask(pictures[0], ["what color is it?", "is it a circle?"])

    Args:
        module: The module that trains or has trained it, which is put into evaluation mode.

    Attributes:
        module: The ``LightningModule``, for a ``Trainer``.
    """

    def __init__(self, module: PretzelModule) -> None:
        self.module = module.eval()

    @property
    def pretzel(self) -> GenerativeModel:
        """The model itself, a ``torch.nn.Module``."""
        return self.module.pretzel

    @property
    def medium(self) -> Medium:
        """Kind and size of its images."""
        return self.pretzel.latent.medium

    @property
    def config(self) -> dict[str, Any] | None:
        """The configuration that it was built from, in plain types; None of one built in Python."""
        return self.module.configuration

    def to(self, device: torch.device | str) -> "TextImageModel":
        """Move the model to a device, and return it.

        Raises:
            UserError: If there is no such device.
        """
        self.module.to(usable_device(device))
        return self

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        image: Any = None,  # noqa: ANN401
        num: int = 1,
        seed: int | None = None,
        guidance: Guidance | float | None = None,
        sampler: Sampler | None = None,
        denoiser: Denoiser | None = None,
        batch_size: int = 64,
    ) -> list[Any]:
        """Generate images, ``num`` for each prompt, one prompt after the other.

        The noise of an image depends on the seed, on its prompt and on how often that prompt came
        before: ``pretzel sample`` generates the same ones.

        Example::

            model.generate(["a red circle"], num=4, guidance=2.0)[0].save("circle.png")
            model.generate(["make it blue"], image="circle.png")[0].save("edited.png")

        Args:
            prompts: Captions; ``[""]`` for a model that reads none.
            image: An image that stands before each prompt, an instruction by which it is edited.
            num: Images of each prompt.
            seed: Seed of the noise; None for that of the configuration.
            guidance: How conditional and null predictions are mixed, or a weight for the guidance
                of the configuration; None for that as it is.
            sampler: How the positions are found; None for the configuration's.
            denoiser: What is done about the training noise; None for the configuration's.
            batch_size: Images at a time.

        Raises:
            UserError: If ``num`` or ``batch_size`` is below 1, the guidance does not suit the
                model, the configuration's denoiser has not been trained, or there is an image and
                the model does not model one behind another.
        """
        if num < 1:
            raise UserError(f"num must be at least 1, got {num}")
        mixing = self._guidance(guidance)
        if denoiser is None:
            self.module.check_denoiser()
        sampling = _Sampling(
            pretzel=self.pretzel,
            guidance=mixing,
            sampler=sampler or self.module.sampler,
            denoiser=denoiser or self.module.denoiser,
            seed=self._seed(seed),
        )
        if image is not None:
            require_edits(self.pretzel)
        before = () if image is None else (Image(),)
        given = torch.zeros(0) if image is None else self._pixels(image)
        requests: list[tuple[str, str]] = []
        counts: Counter[str] = Counter()
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            for _ in range(num):
                requests.append((prompt, f"{prompt}#{counts[prompt]}"))
                counts[prompt] += 1
        generated: list[Any] = []
        for batch in _batches(requests, batch_size):
            keys = [key for _, key in batch]
            documents = [
                Document(key=key, segments=(*before, Text(content=prompt), Image()))
                for prompt, key in batch
            ]
            noise = self.pretzel.sample_noise(keys, sampling.seed, "draw")
            images = last_images(sampling, documents, [given] * len(batch), noise)
            generated += self.medium.outputs(images.pixels)
        return generated

    @overload
    def ask(
        self,
        image: Any,  # noqa: ANN401
        question: str,
        *,
        max_tokens: int = ...,
        batch_size: int = ...,
    ) -> str: ...
    @overload
    def ask(
        self,
        image: Images,
        question: str | Sequence[str],
        *,
        max_tokens: int = ...,
        batch_size: int = ...,
    ) -> str | list[str]: ...
    def ask(
        self,
        image: Images,
        question: str | Sequence[str],
        *,
        max_tokens: int = 64,
        batch_size: int = 64,
    ) -> str | list[str]:
        """Answer a question about an image, by the likeliest token each time.

        Example::

            model.ask("shape.png", "what color is the shape?")                   # "red"
            model.ask("shape.png", ["what color is it?", "is it a circle?"])     # ["red", "yes"]

        Args:
            image: An image, or several.
            question: A question, or several: about one image, or one about each image.
            max_tokens: An answer that has not ended by then is cut.
            batch_size: Questions at a time.

        Returns:
            The answer; a list of them where images or questions are several.

        Raises:
            UserError: If the model has no image-to-text, an image is none, or there are not as
                many questions as images.
        """
        model = require_pretzel(self.pretzel)
        images, questions = _paired(self._pixels(image), question, "questions")
        keys = [content_key(pixels, self.medium.dtype) for pixels in images]
        answers: list[str] = []
        for batch in _batches(list(zip(keys, images, questions, strict=True)), batch_size):
            names, pixels, asked = (list(column) for column in zip(*batch, strict=True))
            answers += answer_by_key(
                model,
                torch.stack(pixels),
                asked,
                names,
                seed=self.module.seed,
                max_tokens=max_tokens,
            )
        return answers[0] if self._is_one(image) and isinstance(question, str) else answers

    def log_prob(
        self, images: Images, texts: str | Sequence[str] | None = None, *, batch_size: int = 64
    ) -> Float[Tensor, " n"]:
        """Return the exact log-likelihood of each image given its text, in nats.

        It is that of the image's latents with the noise of training added, which belongs to the
        image and to the seed of the configuration: the same image has the same noise beside
        whatever text. Figures of models with another latent space or noise are not comparable.

        Example::

            right, wrong = model.log_prob("red.png", ["a red circle", "a blue circle"])

        Args:
            images: Images.
            texts: Their texts; one text for all, or several for one image; None for no text, as
                when captions are dropped in training.
            batch_size: Images at a time.

        Raises:
            UserError: If an image is none, or there are not as many texts as images.
        """
        pixels, captions = _paired(self._pixels(images), "" if texts is None else texts, "texts")
        dtype = self.medium.dtype
        values: list[Tensor] = []
        for batch in _batches(list(zip(pixels, captions, strict=True)), batch_size):
            documents = tuple(
                caption_document(caption, key=content_key(image, dtype), dropped=texts is None)
                for image, caption in batch
            )
            stacked = torch.stack([image for image, _ in batch])
            with torch.inference_mode():
                rows = DocumentBatch(documents=documents, images=stacked)
                values.append(self.module.log_prob(rows).log_prob)
        return torch.cat(values).clone()  # an ordinary tensor, which autograd accepts

    def encode(self, images: Images) -> Float[Tensor, "n p d"]:
        """Return the latents of images, without noise: [n, positions, channels].

        Example::

            latents = model.encode(["a.png", "b.png"])

        Args:
            images: Images.

        Raises:
            UserError: If an image is none.
        """
        with torch.no_grad():
            return self.pretzel.latent.encode(self._pixels(images))

    def decode(self, latents: Float[Tensor, "n p d"]) -> list[Any]:
        """Return the pictures of latents, as :meth:`encode` gives them.

        Example::

            first, = model.decode(model.encode("a.png"))

        Args:
            latents: Latents [n, positions, channels].

        Raises:
            UserError: If they have another shape.
        """
        space = self.pretzel.latent
        if latents.ndim != 3 or latents.shape[1:] != (space.num_positions, space.channels):
            raise UserError(
                f"latents must be [n, {space.num_positions}, {space.channels}], "
                f"got {list(latents.shape)}"
            )
        with torch.no_grad():
            decoded = space.decode(latents.to(self.pretzel.device, self.pretzel.dtype))
        return self.medium.outputs(decoded.clamp(-1, 1))

    def conversation(self, *, seed: int | None = None, key: str = "") -> Conversation:
        """Begin a conversation: text and images in one sequence, which the model goes on with.

        Example::

            conversation = model.conversation(seed=0)
            conversation.say("a red circle")
            conversation.generate().save("circle.png")

        Args:
            seed: Seed of noise and text; None for that of the configuration.
            key: Name of the conversation: others have other noise.

        Raises:
            UserError: If the model is a flow by itself.
        """
        self.module.check_denoiser()
        return Conversation(conversations_with(self.module, [key], seed=seed))

    def _seed(self, seed: int | None) -> int:
        return self.module.seed if seed is None else seed

    def _guidance(self, guidance: Guidance | float | None) -> Guidance:
        if guidance is None:
            return self.module.guidance
        if not isinstance(guidance, Guidance):
            mixing = GaussianMixing(weight=guidance)
            configured = copy.copy(self.module.guidance)
            configured.weight = mixing.weight
            guidance = mixing if isinstance(configured, NoGuidance) else configured
        check_guided(self.pretzel, guidance)
        return guidance

    def _pixels(self, images: Images) -> Float[Tensor, "n ..."]:
        several = [images] if self._is_one(images) else list(images)
        if not several:
            raise UserError("images must be at least one, got none")
        pixels = self.medium.tensors(several)
        return pixels.to(self.pretzel.device, self.pretzel.dtype)

    def __repr__(self) -> str:
        kind = type(self.pretzel).__name__
        return f"TextImageModel({kind}, {self.medium}, {self.pretzel.device})"

    def _is_one(self, images: Images) -> bool:
        if isinstance(images, torch.Tensor):
            return images.ndim <= len(self.medium.shape)
        return not isinstance(images, Sequence) or isinstance(images, str)


def _paired(
    images: Float[Tensor, "n ..."], texts: str | Sequence[str], name: str
) -> tuple[list[Tensor], list[str]]:
    """Return as many images as texts; one of either is repeated."""
    captions = [texts] if isinstance(texts, str) else list(texts)
    several = list(images)
    if len(several) == 1:
        several *= len(captions)
    if len(captions) == 1:
        captions *= len(several)
    if len(several) != len(captions) or not captions:
        raise UserError(
            f"{name} must be one, or one for each image, got {len(captions)} for {len(several)}"
        )
    return several, captions


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    if size < 1:
        raise UserError(f"batch_size must be at least 1, got {size}")
    for start in range(0, len(items), size):
        yield items[start : start + size]


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device; raise a UserError if tensors cannot be made on it."""
    try:
        # torch.device("cuda") exists everywhere: only memory on it tells
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device must be one that this machine and this PyTorch have, got {str(device)!r}"
        ) from error
