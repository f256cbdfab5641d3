"""The configuration of an imported model: a run that fit, test and sample take as any other."""

from dataclasses import dataclass
from pathlib import Path

from pretzel.errors import UserError
from pretzel.interop.imported_flow import ImportedFlow, Node


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """What stands around the blocks.

    Attributes:
        latent: Node of the latent space.
        image_size: Side of its images in pixels.
        condition: Node of what the blocks are conditioned on.
        guidance: Node of the guidance.
        denoiser: Node of the denoiser.
        prompts: What sample sheets are drawn of; None for captions of the data.
        data: Node of the data; None for the embedded easy-VQA.
    """

    latent: Node
    image_size: int
    condition: Node
    guidance: Node
    denoiser: Node
    prompts: list[str] | None = None
    data: Node | None = None


def fit_config(flow: ImportedFlow, around: RunParts, *, weights: Path, name: str) -> Node:
    """Return a configuration of ``pretzel fit`` that starts from the imported weights.

    Args:
        flow: The imported model.
        around: What stands around its blocks.
        weights: File of the weights; written down as an absolute path, so that the configuration
            means the same from every folder.
        name: Name of the run.

    Raises:
        UserError: If the blocks are not shallow ones alike and a deep one, each with layers.
    """
    return {
        "seed_everything": 0,
        "model": {
            "class_path": "pretzel.training.PretzelModule",
            "init_args": {
                "pretzel": _model(flow, around),
                "text_weight": 0.0,
                "optimizer": {
                    "class_path": "torch.optim.AdamW",
                    "init_args": {"lr": 1e-4, "betas": [0.9, 0.95], "weight_decay": 1e-4},
                },
                "schedule": {
                    "class_path": "pretzel.training.WarmupCosine",
                    "init_args": {"warmup_steps": 50, "final_factor": 0.01},
                },
                "guidance": around.guidance,
                "denoiser": around.denoiser,
                "sampler": {"class_path": "pretzel.sampling.Sequential"},
                "weights": str(weights.absolute()),
            },
        },
        "data": around.data or _easy_vqa(around.image_size),
        "trainer": _trainer(around, name),
    }


def _model(flow: ImportedFlow, around: RunParts) -> Node:
    *shallow, deep = flow.blocks
    if any(block.num_layers < 1 for block in flow.blocks):
        raise UserError(f"block {deep.number} must have layers, got none")
    others = [block.number for block in shallow if block.node != shallow[0].node]
    if others:
        raise UserError(
            f"blocks but the last must be alike in all but their layers, got block {others[0]} "
            f"unlike block {shallow[0].number}"
        )
    permutations = [
        {"class_path": "pretzel.flow.Flip" if block.flips else "pretzel.flow.Raster"}
        for block in flow.blocks
    ]
    return {
        "class_path": "pretzel.tarflow.TarFlow",
        "init_args": {
            "latent": around.latent,
            "split": {
                "class_path": "pretzel.flow.ExplicitSplit",
                "init_args": {
                    "shallow": [block.num_layers for block in shallow],
                    "deep": deep.num_layers,
                },
            },
            "permutations": permutations,
            "shallow": (shallow[0] if shallow else deep).node,
            "deep": deep.node,
            "condition": around.condition,
        },
    }


def _easy_vqa(image_size: int) -> Node:
    return {
        "class_path": "datamodules.WebDatasetDataModule",
        "init_args": {
            "source": {"class_path": "datamodules.EasyVQA"},
            "recipe": {"class_path": "datamodules.Captions", "init_args": {"drop": 0.1}},
            "image_size": image_size,
            "batch_size": 16,
            "eval_batch_size": 100,
            "steps_per_epoch": 350,
            "num_val_samples": 100,
        },
    }


def _trainer(around: RunParts, name: str) -> Node:
    samples: Node = {"num_images": 24, "columns": 8}
    if around.prompts is not None:
        samples["prompts"] = around.prompts
    return {
        "default_root_dir": f"runs/{name}",
        "max_steps": 700,
        "gradient_clip_val": 1.0,
        "val_check_interval": 350,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "accelerator": "auto",
        "devices": 1,
        "callbacks": [
            {"class_path": "callbacks.EMAWeightAveraging", "init_args": {"decay": 0.995}},
            {"class_path": "callbacks.NonFiniteGuard"},
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"save_last": True, "every_n_train_steps": 350, "save_top_k": 0},
            },
            {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
            {"class_path": "callbacks.Likelihood"},
            {"class_path": "callbacks.SampleGrid", "init_args": samples},
            {"class_path": "callbacks.PredictionWriter"},
        ],
    }
