"""Image features of any CLIP or SigLIP of transformers."""

from typing import Any, final

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, CLIPModel, Siglip2Model, SiglipModel
from typing_extensions import override

from callbacks.feature_extractors import FeatureExtractor
from callbacks.hub_models import HubModel, image_facts
from pretzel.errors import UserError
from pretzel.media.integers import to_integers


class _Encoder(HubModel):
    kind = "CLIP or SigLIP"
    loaded_by = (AutoModel, AutoImageProcessor)
    part = "CLIPFeatures"

    @override
    def _use(self, network: Any, processor: Any) -> None:
        if not isinstance(network, (CLIPModel, SiglipModel, Siglip2Model)):
            raise UserError(
                f"{self.part}: model {self.model!r} must be a {self.kind}, got a "
                f"{type(network).__name__}"
            )

    def load(self) -> tuple[nn.Module, Any, str]:
        """Return the network, its image processor, and a hash of its weights."""
        self.prepare(torch.device("cpu"))
        return self._network, self._processor, self._weights


@final
class CLIPFeatures(FeatureExtractor):
    """The image embeddings of a CLIP or SigLIP, before they are brought to norm 1.

    Metrics are named ``..._<last part of model>``. With :class:`callbacks.MMD` and
    ``openai/clip-vit-large-patch14-336`` that is CMMD (Jayasumana et al. 2024, arXiv 2401.09603).
    Images are resized and cropped by the model's own processor.

    Args:
        model: Local folder or hub id of a CLIP or SigLIP with its image processor.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._encoder = _Encoder(model)
        self.network: Any = None

    @property
    @override
    def suffix(self) -> str:
        return f"_{self._encoder.name}"

    @property
    def file_names(self) -> tuple[str, str]:  # type: ignore[override]
        """Network and layer in the names of files that keep features, the library beside them."""
        return f"{self._encoder.name}-transformers-{transformers.__version__}", "image-embeds"

    @override
    def prepare(self) -> None:
        if self.network is None:
            self.network, self._processor, self._weights = self._encoder.load()

    @override
    def facts(self) -> dict[str, Any]:
        self.prepare()
        return image_facts(self._encoder.name, self._weights, self._processor)

    @override
    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        inputs = self._processor(images=list(to_integers(images).cpu()), return_tensors="pt")
        inputs = inputs.to(next(self.network.parameters()).device)
        features: Tensor = self.network.get_image_features(**inputs).pooler_output
        return features
