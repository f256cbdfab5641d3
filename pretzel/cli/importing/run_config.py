"""The configuration of an imported model: a run that fit, test and sample take as any other."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from pretzel.errors import UserError
from pretzel.interop.imported_flow import ImportedFlow, Node, node

_TEMPLATE = Path(__file__).with_name("template.yaml")


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """Nodes of the parts of a run beside the imported blocks.

    Attributes:
        image_size: Side of the images of the latent space in pixels.
        prompts: Prompts of sample sheets; None for captions of the data.
        data: None for the embedded easy-VQA.
    """

    latent: Node
    image_size: int
    condition: Node
    guidance: Node
    denoiser: Node
    prompts: list[str] | None = None
    data: Node | None = None


def fit_config(flow: ImportedFlow, parts: RunParts, *, weights: Path, name: str) -> Node:
    """Return a configuration of ``pretzel fit`` that starts from the imported weights.

    Their absolute path is written, so that it means the same from every folder.

    Raises:
        UserError: If the blocks are not shallow ones alike and a deep one, each with layers.
    """
    config: Node = yaml.safe_load(_TEMPLATE.read_text(encoding="utf-8"))
    module, trainer = config["model"]["init_args"], config["trainer"]
    _fill_model(module["pretzel"]["init_args"], flow, parts)
    module["guidance"] = parts.guidance
    module["denoiser"] = parts.denoiser
    module["weights"] = str(weights.absolute())
    config["data"]["init_args"]["image_size"] = parts.image_size
    config["data"] = parts.data or config["data"]
    trainer["default_root_dir"] = f"runs/{name}"
    if parts.prompts is not None:
        (sheets,) = (c for c in trainer["callbacks"] if c["class_path"] == "callbacks.SampleGrid")
        sheets["init_args"]["prompts"] = parts.prompts
    return config


def _fill_model(model: Node, flow: ImportedFlow, parts: RunParts) -> None:
    *shallow, deep = flow.blocks
    if any(block.num_layers < 1 for block in flow.blocks):
        raise UserError(f"block {deep.number} must have layers, got none")
    others = [block.number for block in shallow if block.node != shallow[0].node]
    if others:
        raise UserError(
            f"blocks but the last must be alike in all but their layers, got block {others[0]} "
            f"unlike block {shallow[0].number}"
        )
    model["latent"] = parts.latent
    layers = {"shallow": [block.num_layers for block in shallow], "deep": deep.num_layers}
    model["split"]["init_args"] = layers
    model["permutations"] = [node("flow.Flip" if b.flips else "flow.Raster") for b in flow.blocks]
    model["shallow"] = (shallow[0] if shallow else deep).node
    model["deep"] = deep.node
    model["condition"] = parts.condition
