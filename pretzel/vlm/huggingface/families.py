"""Families of Hugging Face models: where their parts are, and how they take in images.

The parts are called as the models call them; images are resized and normalised as the families'
own preprocessors do, as a whole, never in tiles.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor
from pretzel.vlm.huggingface.preprocessing import CLIP_MEAN, CLIP_STD, HALF, Preprocessing, resized
from pretzel.vlm.huggingface.untyped import Config, Model

Images = Float[Tensor, "m 3 height width"]
Features = tuple[Float[Tensor, "m n h"], tuple[int, int]]
"""One feature a position of each image, in raster order, and their grid."""


class Family:
    """One kind of model; by itself a plain causal language model, without a vision tower.

    Attributes:
        decoder_name: Name of the inner text model among its models' modules.
        counts_axes: Whether rotary positions have three axes: time, row and column of an image.
        special: Strings of special tokens by role, where its vocabulary has them.
        special_ids: The same roles as names of ids in its configuration.
        preprocessing: Of its images, where a folder says nothing; None without a tower.
    """

    decoder_name = "model"
    counts_axes = False
    special: Mapping[str, str] = {}
    special_ids: Mapping[str, str] = {}
    preprocessing: Preprocessing | None = None


class VisionFamily(Family, ABC):
    """A family whose models have a vision tower."""

    decoder_name = "model.language_model"
    preprocessing = Preprocessing(mean=CLIP_MEAN, std=CLIP_STD)

    def image_size(
        self, config: Config, height: int, width: int, preprocessing: Preprocessing
    ) -> tuple[int, int]:
        """Return the size in pixels to which its tower resizes an image: by default always one."""
        side: int = config.vision_config.image_size  # the tower's positions are learned
        return side, side

    @abstractmethod
    def features(self, model: Model, images: Images) -> Features:
        """Return the features of normalised images."""

    def prepare(
        self, config: Config, images: Images, preprocessing: Preprocessing
    ) -> Float[Tensor, "m 3 height2 width2"]:
        """Resize images in [-1, 1] for the tower and normalise their colours, float32 at least."""
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        size = self.image_size(config, images.shape[-2], images.shape[-1], preprocessing)
        if size != tuple(images.shape[-2:]):
            # bicubic overshoots, which 8-bit preprocessors clip
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        centre, spread = (
            images.new_tensor(values)[:, None, None]
            for values in (preprocessing.mean, preprocessing.std)
        )
        return ((images + 1) / 2 - centre) / spread


class Llava(VisionFamily):
    """LLaVA (arXiv 2304.08485): a CLIP tower, a projector, a Llama or Qwen decoder."""

    @override
    def features(self, model: Model, images: Images) -> Features:
        """Run tower and projector; the class token, where one is kept, is no position."""
        vision = model.config.vision_config
        side = vision.image_size // vision.patch_size
        features = model.model.get_image_features(
            images,
            vision_feature_layer=model.config.vision_feature_layer,
            vision_feature_select_strategy=model.config.vision_feature_select_strategy,
            return_dict=True,
        ).pooler_output
        return torch.stack(tuple(features))[:, -side * side :], (side, side)


class SmolVLM(VisionFamily):
    """SmolVLM (arXiv 2504.05299): a SigLIP tower, pixel shuffle, a SmolLM2 decoder; no tiles.

    The checkpoints of its first version are configured as Idefics3 (arXiv 2408.12637), of which it
    is a smaller one; SmolVLM2 has a ``model_type`` of its own.
    """

    decoder_name = "model.text_model"
    preprocessing = Preprocessing(mean=HALF, std=HALF)

    @override
    def features(self, model: Model, images: Images) -> Features:
        """Run tower and connector.

        The model's own ``get_image_features`` would drop an image that is grey all over: to it,
        zeros are padding.
        """
        vision = model.config.vision_config
        side = vision.image_size // vision.patch_size
        is_inside = images.new_ones(len(images), side, side).bool()
        hidden = model.model.vision_model(pixel_values=images, patch_attention_mask=is_inside)
        features: Tensor = model.model.connector(hidden.last_hidden_state)
        side //= model.config.scale_factor
        return features, (side, side)


class QwenVL(VisionFamily):
    """Qwen2.5-VL (arXiv 2502.13923) and Qwen3-VL: images of any size, positions of three axes.

    Of Qwen3-VL, features enter at the embeddings alone: those that its tower also hands to the
    first decoder layers (DeepStack) are left out.
    """

    counts_axes = True
    special = {  # noqa: RUF012  # a constant
        "begin_of_image": "<|vision_start|>",
        "end_of_image": "<|vision_end|>",
        "end_of_text": "<|im_end|>",
        "pad": "<|endoftext|>",
    }
    special_ids = {  # noqa: RUF012  # a constant
        "begin_of_image": "vision_start_token_id",
        "end_of_image": "vision_end_token_id",
    }

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    @override
    def image_size(
        self, config: Config, height: int, width: int, preprocessing: Preprocessing
    ) -> tuple[int, int]:
        """Return multiples of a merged patch, within the limits of its preprocessing."""
        unit: int = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        assert preprocessing.pixels is not None
        return resized(height, width, unit, preprocessing.pixels)

    @override
    def features(self, model: Model, images: Images) -> Features:
        """Run tower and merger."""
        vision = model.config.vision_config
        merge = vision.spatial_merge_size
        patches, (rows, columns) = qwen_patches(
            images, vision.patch_size, merge, vision.temporal_patch_size
        )
        # [time, row, column] of patches, before merging
        grid = patches.new_tensor([1, rows, columns]).long().expand(len(images), 3)
        features = model.model.get_image_features(patches, grid, return_dict=True).pooler_output
        return torch.stack(tuple(features)), (rows // merge, columns // merge)


def qwen_patches(
    images: Images, patch: int, merge: int, frames: int
) -> tuple[Float[Tensor, "k c"], tuple[int, int]]:
    """Return flattened patches as Qwen's tower reads them, and the rows and columns of patches.

    Patches that will be merged follow each other; a still image is a film of equal frames. A patch
    has a side of ``patch`` pixels, a merged one of ``merge`` patches.
    """
    rows, columns = (side // patch for side in images.shape[-2:])
    # Row and column of the merged patch (r, c), of the patch in it (i, j), of the pixel (p, q)
    blocks = (rows // merge, merge, patch, columns // merge, merge, patch)
    split = images.reshape(*images.shape[:2], *blocks)
    patches = torch.einsum("mxripcjq->mrcijxpq", split)
    films = patches.unsqueeze(-3).expand(*patches.shape[:-2], frames, patch, patch)
    return films.flatten(5).flatten(0, 4), (rows, columns)


FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "llava": Llava(),
    "smolvlm": SmolVLM(),
    "idefics3": SmolVLM(),
    # the class of transformers that prepares its images
    "qwen2_5_vl": QwenVL(
        Preprocessing(mean=CLIP_MEAN, std=CLIP_STD, pixels=(56 * 56, 28 * 28 * 1280))
    ),
    # that class again, as all published models configure it
    "qwen3_vl": QwenVL(Preprocessing(mean=HALF, std=HALF, pixels=(256 * 256, 4096 * 4096))),
}
"""By the ``model_type`` of a configuration."""


def family_of(model_type: object, source: str) -> Family:
    """Return the family of a ``model_type``; raise a UserError about its source if none is."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"{source} must be of one of the families {', '.join(sorted(FAMILIES))}, "
            f"got model_type {model_type!r}"
        )
    return FAMILIES[model_type]
