"""Pictures of captions with the model's own answers about them, and their likelihoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Integer
from torch import Tensor

from callbacks.image_generator import ImageGenerator
from callbacks.picture_choice import Candidates
from callbacks.prompts import Prompt
from callbacks.vqa.normalisation import normalise
from pretzel.generation.answers import answer
from pretzel.generation.conversation_batch import require_pretzel
from pretzel.generation.images import decode_images
from pretzel.generation.latents import sample_latents
from pretzel.media.integers import to_integers
from pretzel.sequence.document import caption_document


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption with what follows from it.

    Attributes:
        place: Its place among all.
        key: That of its sample.
        prompt: The caption, with the ground truth of the sample if it is asked for.
        asked: Questions about its pictures, with right answers.
    """

    place: int
    key: str
    prompt: Prompt
    asked: Sequence[tuple[str, str]]

    def wrong(self, answers: Sequence[str]) -> list[str]:
        """Return the questions that are answered wrongly, each with the answer."""
        return [
            f"{question} {answer.strip() or '(empty)'}"
            for (question, truth), answer in zip(self.asked, answers, strict=True)
            if normalise(answer) != normalise(truth)
        ]


@dataclass(frozen=True, eq=False, kw_only=True)
class CheckedPictures:
    """The pictures of a caption, in the order of their generation.

    Attributes:
        caption: The caption.
        pictures: The pictures, rounded as files hold them.
        num_not_finite: Number of those with a NaN or an infinity before.
        wrong: Questions about each that the model answers wrongly, with its answers.
        candidates: What one of them is chosen by.
    """

    caption: Caption
    pictures: Integer[Tensor, "n ..."]
    num_not_finite: int
    wrong: Sequence[Sequence[str]]
    candidates: Candidates


def checked_pictures(
    module: ImageGenerator, captions: Sequence[Caption], count: int
) -> list[CheckedPictures]:
    """Generate pictures of each caption, and ask the model about each.

    The noise of a picture belongs to the key and its number: the first is that of
    ``PretzelModule.generate``. Questions are asked about the very latents that the flow has made,
    without the caption, from which they could be answered without a look.

    Args:
        module: Generates and answers.
        captions: The captions.
        count: Number of pictures of each.
    """
    module.check_denoiser()
    model = require_pretzel(module.pretzel)
    texts = [caption.prompt.text for caption in captions]
    documents = [caption_document(text) for text in texts]
    counts = torch.tensor([len(caption.asked) for caption in captions], device=model.device)
    asked_about = torch.arange(len(captions), device=model.device).repeat_interleave(counts)
    questions = [question for caption in captions for question, _ in caption.asked]
    pixels, log_probs, wrong = [], [], []
    for number in range(count):
        suffix = f"#{number} anew" if number else ""
        names = [f"{caption.key}{suffix}" for caption in captions]
        noise = model.sample_noise(names, module.seed, "draw")
        with torch.inference_mode():
            x = sample_latents(model, texts, noise, module.guidance, module.sampler).x
            log_probs.append(model.score(documents, x).log_prob.tolist())
        pixels.append(decode_images(model, documents, x, module.denoiser).cpu())
        answers = iter(answer(model, x, asked_about, questions))
        wrong.append([own.wrong(list(islice(answers, len(own.asked)))) for own in captions])
    columns = zip(
        captions,
        torch.stack(pixels, dim=1),
        zip(*log_probs, strict=True),
        zip(*wrong, strict=True),
        strict=True,
    )
    return [
        CheckedPictures(
            caption=caption,
            pictures=to_integers(images, model.latent.medium.dtype),
            num_not_finite=int((~images.isfinite().flatten(1).all(dim=1)).sum()),
            wrong=mistakes,
            candidates=Candidates(
                num_questions=len(caption.asked),
                num_right=[len(caption.asked) - len(own) for own in mistakes],
                log_probs=likelihoods,
            ),
        )
        for caption, images, likelihoods, mistakes in columns
    ]
