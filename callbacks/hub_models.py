"""Models of transformers that measure images, loaded from a folder or the hub."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import torch

from callbacks.feature_extractors import fingerprint
from pretzel.errors import UserError
from pretzel.files.pretrained import check_complete, refused

_GEOMETRY = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad")


class HubModel:
    """A frozen model of transformers and its processor, for parts of metrics and metrics.

    Args:
        model: Local folder or hub id.

    Attributes:
        kind: Name of such models.
        loaded_by: Classes of transformers that load the model and its processor.
    """

    kind: ClassVar[str]
    loaded_by: ClassVar[tuple[Any, Any]]

    def __init__(self, model: str) -> None:
        self.model = model
        self._last_part = re.sub(r"[^a-z0-9-]+", "-", Path(model).name.lower()).strip("-")
        if not self._last_part:
            raise UserError(f"{self.part}: model must be a folder or a hub id, got {model!r}")
        self._network: Any = None
        self._processor: Any = None

    @property
    def part(self) -> str:
        """Name of the part, in errors."""
        return type(self).__name__

    @property
    def name(self) -> str:
        """The last part of the folder or hub id, as it stands in the names of metrics."""
        return self._last_part

    def prepare(self, device: torch.device) -> None:
        """Load the model if it is not yet, and move it to ``device``.

        Raises:
            UserError: If it or its processor cannot be loaded or used, or weights or a package are
                missing.
        """
        if self._network is None:
            network, processor = self._load()
            self._use(network, processor)
            self._weights = fingerprint(network)
            self._network, self._processor = network, processor
        self._network.to(device)

    def _use(self, network: Any, processor: Any) -> None:  # noqa: ANN401
        """Take what is needed of a model that was loaded, or refuse it."""

    def _load(self) -> tuple[Any, Any]:
        name = f"{self.part}: model {self.model!r}"
        sentence = (
            f"{name} cannot be loaded: give a local folder with a model of this kind "
            f"({self.kind}) and its processor, or a hub id where the hub is reachable"
        )
        package = f"{name} needs a package that is not installed"
        network, processor = self.loaded_by
        with refused(sentence, package), torch.random.fork_rng(devices=[]):
            loaded, info = network.from_pretrained(
                self.model, trust_remote_code=False, output_loading_info=True
            )
            read = processor.from_pretrained(self.model, trust_remote_code=False)
        owner = f"{self.part}: {self.model}"
        check_complete(owner, info["missing_keys"], info["mismatched_keys"])
        return loaded.train(False).requires_grad_(False), read


def image_facts(name: str, weights: str, processor: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what computes features of images, as :meth:`.FeatureExtractor.facts` does.

    Args:
        name: Of the model.
        weights: Hash of its weights.
        processor: Its image processor, which resizes and crops.
    """
    settings = processor.to_dict()
    geometry = {key: settings[key] for key in _GEOMETRY if settings.get(key) is not None}
    return {
        "extractor": name,
        "weights": weights,
        "resize": json.dumps(geometry, sort_keys=True, default=dict),
        "antialias": True,
    }
