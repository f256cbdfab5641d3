"""A small dual encoder of images and captions, trained on the embedded data.

It scores generated images where no CLIP can be had (:mod:`callbacks.dual_encoder.score`). Its
weights are shipped; ``ablations/stages/dual_encoder.yaml`` says how they are rebuilt.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from torch.nn.utils.rnn import pad_sequence

from pretzel.files.weights import load_half
from pretzel.latent.features import EfficientNetLite0
from pretzel.vlm.tiny.tokenizer import SHIPPED_TOKENIZER, WordPieces

SHIPPED_WEIGHTS = Path(__file__).with_name("dual_encoder.safetensors")
IMAGE_SIZE = 64
"""Side of the square that is looked at, in pixels."""
MAX_TOKENS = 48
"""Word pieces of a caption that are read; what is behind them is not."""


class DualEncoder(nn.Module):
    """Embeds images and captions in one space (the form of CLIP, Radford et al. 2021).

    An image is the mean and the largest response over positions of two blocks of the frozen
    EfficientNet-Lite0, as in the shipped feature autoencoder, and a small network on them; a
    caption is read by one transformer layer over word pieces.

    Args:
        width: Of the transformer layer and of the embeddings.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features = EfficientNetLite0(image_size=IMAGE_SIZE, input_size=128, blocks=(4, 10))
        self._tokenizer = WordPieces(SHIPPED_TOKENIZER.read_text(encoding="utf-8"))
        pooled = 2 * self.features.channels
        self.image = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Linear(pooled, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
        )
        self.token = nn.Embedding(self._tokenizer.vocab_size, width)
        self.position = nn.Parameter(0.02 * torch.randn(MAX_TOKENS, width))
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.text = nn.Linear(width, width)

    def look(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n p f"]:
        """Return the frozen features of images in [-1, 1] of any size."""
        size = (IMAGE_SIZE, IMAGE_SIZE)
        if images.shape[-2:] != size:
            images = interpolate(images, size, mode="bilinear", antialias=True)
        seen: Tensor = self.features(images)
        return seen

    def embed_features(self, features: Float[Tensor, "n p f"]) -> Float[Tensor, "n d"]:
        """Return the embeddings, of norm 1, of images whose features are known."""
        pooled = torch.cat([features.mean(dim=1), features.amax(dim=1)], dim=1)
        return normalize(self.image(pooled), dim=1)

    def embed_images(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n d"]:
        """Return the embeddings, of norm 1, of images in [-1, 1]."""
        return self.embed_features(self.look(images))

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return the embeddings, of norm 1, of captions."""
        device = self.position.device
        pad = self._tokenizer.special.pad
        rows = [self._tokenizer.encode(text)[:MAX_TOKENS] or [pad] for text in texts]
        tokens = pad_sequence(
            [torch.tensor(row, device=device) for row in rows], batch_first=True, padding_value=pad
        )
        is_read = tokens != pad
        is_read[:, 0] = True  # of an empty caption something must be
        x = self.token(tokens) + self.position[: tokens.shape[1]]
        x = self.layer(x, src_key_padding_mask=~is_read)
        mean = (x * is_read[..., None]).sum(dim=1) / is_read.sum(dim=1, keepdim=True)
        return normalize(self.text(mean), dim=1)

    def num_unread(self, texts: Sequence[str]) -> int:
        """Return how many captions are longer than what is read."""
        return sum(len(self._tokenizer.encode(text)) > MAX_TOKENS for text in texts)


def load_dual_encoder(path: Path = SHIPPED_WEIGHTS) -> DualEncoder:
    """Return the dual encoder, frozen, from a file with its ``.sha256`` beside it.

    Raises:
        UserError: If a file is missing or the hash differs.
    """
    state = load_half(path)
    with torch.random.fork_rng(devices=[]):
        encoder = DualEncoder()
    encoder.load_state_dict(state)
    return encoder.requires_grad_(False).eval()
