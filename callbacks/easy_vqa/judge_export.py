"""Turn a checkpoint of :mod:`callbacks.easy_vqa.judge_training` into the file that ships.

``python -m callbacks.easy_vqa.judge_export CHECKPOINT callbacks/easy_vqa/judge.safetensors``
"""

import argparse
from pathlib import Path

import torch

from callbacks.easy_vqa.judge import Judge, save_judge
from pretzel.errors import UserError


def export(checkpoint: Path, path: Path) -> str:
    """Write the judge of a training checkpoint as the file that ships.

    Returns:
        The SHA-256 of the written file.

    Raises:
        UserError: If the checkpoint does not exist or is not of :class:`JudgeTraining`.
    """
    if not checkpoint.is_file():
        raise UserError(f"checkpoint {str(checkpoint)!r} does not exist")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "judge."
    state = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if state.keys() != Judge().state_dict().keys():
        raise UserError(f"checkpoint {str(checkpoint)!r} is not one of JudgeTraining")
    return save_judge(state, path)


def main(args: list[str] | None = None) -> None:
    """Export a checkpoint from the command line."""
    parser = argparse.ArgumentParser(description="Export a trained judge.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    namespace = parser.parse_args(args)
    try:
        print(export(namespace.checkpoint, namespace.output))
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
