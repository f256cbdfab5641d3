"""One made-up sample, run as a training step runs it, to count what that costs."""

import torch

from pretzel.latent.generative_model import GenerativeModel
from pretzel.sequence.document import Document, Image, Text
from pretzel.tarflow import TarFlow, TextEncoder

# As tokens, so that no tokenizer is needed, and all models read as many.
_TEXT = Text(content="a small red circle", tokens=(0,) * 16)
_ANSWER = Text(content="yes", role="target", tokens=(0,))


def run_example(model: GenerativeModel, *, has_images: bool = True) -> None:
    """Run a model on the latents of one document, as a training step does.

    The document is a captioned image, or else a question about one, which a loss of text alone
    learns from. Frozen encoders of images and texts beside the model are left out: they cost all
    arms that have them the same, their outputs may be kept, and large ones are only loaded where
    they run.
    """
    x = torch.zeros(
        1, model.latent.num_positions, model.latent.channels, device=model.device, dtype=model.dtype
    )
    if isinstance(model, TarFlow) and isinstance(model.text_condition, TextEncoder):
        encoder = model.text_condition
        model.stack(x, x.new_zeros(1, encoder.length, encoder.channels))
        return
    segments = (_TEXT, Image()) if has_images else (Image(), _TEXT, _ANSWER)
    model.score([Document(key="example", segments=segments)], x)
