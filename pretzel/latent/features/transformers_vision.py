"""Features of a vision transformer of the package transformers, by hub id or folder."""

import inspect
from functools import cached_property
from typing import Any, final

import torch

from pretzel.errors import UserError
from pretzel.files.pretrained import check_complete, refused
from pretzel.files.weights import content_hash
from pretzel.latent.features.base import FeatureEncoder, resize
from pretzel.typing import Float, Tensor


@final
class TransformersVision(FeatureEncoder):
    """Hidden states of a vision transformer: DINOv2, with registers or without, SigLIP2, CLIP, ViT.

    Class and register tokens are left out. Positions are interpolated where it sees another size
    than it was trained with. Of a model of image and text the vision tower is taken.

    Args:
        name: Hub id or local folder, for example ``facebook/dinov2-with-registers-base``.
        image_size: Side of the square images, in pixels.
        input_size: Side that the network sees, in pixels; a multiple of ``patch_size``.
        patch_size: Side of the network's patches, in pixels.
        channels: Its hidden size.
        layer: Layer whose output is taken, 1 for the first one; None for the last one behind the
            network's final norm.
        mean: Of each colour, of values in [0, 1], subtracted from the images; None for that in
            the model's ``preprocessor_config.json``.
        std: Of each colour, which they are then divided by; None likewise.

    Raises:
        UserError: If a size is not positive or does not fit.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        input_size: int,
        patch_size: int,
        channels: int,
        layer: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> None:
        super().__init__()
        if min(image_size, patch_size, channels) < 1:
            raise UserError(
                "image_size, patch_size and channels must be positive, "
                f"got {image_size}, {patch_size} and {channels}"
            )
        if input_size < 1 or input_size % patch_size:
            raise UserError(
                f"input_size must be a multiple of patch_size={patch_size}, got {input_size}"
            )
        if std is not None and min(std) <= 0:
            raise UserError(f"std must be positive, got {list(std)}")
        if layer is not None and layer < 1:
            raise UserError(f"layer must be 1 for the first layer or more, got {layer}")
        self.name = name
        self.image_size = image_size
        self.input_size = input_size
        self.patch_size = patch_size
        self.layer = layer
        self.mean = mean
        self.std = std
        self.grid = (input_size // patch_size,) * 2
        self.stages = (channels,)

    @cached_property  # of the weights as they were read, whatever the precision they are used in
    def identity(self) -> str:
        """Settings and content hash of the weights."""
        digest = content_hash(self._network.state_dict())[:16]
        mean, std = self._colours
        settings = f"{self.image_size}/{self.input_size}/{self.layer or 'last'}"
        return f"vision:{settings}:{mean}/{std}:{digest}"

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "m 3 height width"]) -> Float[Tensor, "m n f"]:
        """Return the hidden states of the patches."""
        self.check_size(images)
        network = self._network.to(images)
        mean, std = (images.new_tensor(colours)[:, None, None] for colours in self._colours)
        x = ((resize(images, self.input_size) + 1) / 2 - mean) / std
        options: dict[str, bool] = {}
        if "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
            options["interpolate_pos_encoding"] = True  # DINOv2 always does
        deep = self.layer is not None
        out = network(pixel_values=x, output_hidden_states=deep, **options)
        states = out.last_hidden_state if self.layer is None else out.hidden_states[self.layer]
        patches = self.grid[0] * self.grid[1]
        own = states.shape[1] - patches  # class and register tokens come first
        if not 0 <= own <= 1 + getattr(network.config, "num_register_tokens", 0):
            raise UserError(
                f"{self.name} must give a vector for each of {self.grid[0]} x {self.grid[1]} "
                f"patches (input_size over patch_size), got {states.shape[1]} vectors"
            )
        kept: Tensor = states[:, own:]
        return kept

    @cached_property  # not a submodule: its weights belong to no checkpoint
    def _network(self) -> Any:  # noqa: ANN401
        from transformers import AutoModel

        sentence = (
            "name must be a hub id that can be reached, or a local folder, of a vision "
            f"transformer, got {self.name}"
        )
        load: Any = AutoModel.from_pretrained
        with refused(sentence), torch.random.fork_rng(devices=[]):
            model, info = load(
                self.name,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
            )
        network = getattr(model, "vision_model", model)
        config = network.config
        if not hasattr(config, "patch_size") or not hasattr(config, "hidden_size"):
            raise UserError(f"{sentence}, whose {config.model_type} has no patches")
        lacking = [n for n in info["missing_keys"] if not _in_a_head(n)]  # pools what is read here
        check_complete(self.name, lacking, info["mismatched_keys"])
        if (config.hidden_size, config.patch_size) != (self.channels, self.patch_size):
            raise UserError(
                f"channels and patch_size must be those of {self.name}, {config.hidden_size} and "
                f"{config.patch_size}, got {self.channels} and {self.patch_size}"
            )
        if self.layer is not None and self.layer > config.num_hidden_layers:
            raise UserError(
                f"layer must be at most {config.num_hidden_layers}, the layers of {self.name}, "
                f"got {self.layer}"
            )
        return network.eval().requires_grad_(False)

    @cached_property
    def _colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each colour."""
        if self.mean is not None and self.std is not None:
            return tuple(self.mean), tuple(self.std)
        from transformers import AutoImageProcessor

        try:
            load: Any = AutoImageProcessor.from_pretrained
            processor = load(self.name, trust_remote_code=False)
            mean, std = processor.image_mean, processor.image_std
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"mean and std must be given: {self.name} has no preprocessor_config.json that "
                "states them"
            ) from error
        return tuple(self.mean or mean), tuple(self.std or std)


def _in_a_head(name: str) -> bool:
    return not {"pooler", "head"}.isdisjoint(name.split("."))
