"""Runs of the benchmark of grids: short ones of the tiny model, as a grid and as plain fits."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pretzel.ablation.gridfile.reading import load
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.result_file import write_result
from pretzel.files.atomic import write_json
from pretzel.files.content_hash import file_hash

BASE = Path(__file__).parents[1] / "ablations" / "base" / "easy_vqa.yaml"
_RATE = "model.init_args.optimizer.init_args.lr"
_CALLBACKS: Sequence[Mapping[str, Any]] = (
    {"class_path": "callbacks.EMAWeightAveraging", "init_args": {"decay": 0.995}},
    {"class_path": "callbacks.NonFiniteGuard"},
    {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"},
)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A folder with the configuration of a short run, and what runs it.

    Attributes:
        folder: The folder; every run is below it.
        steps: Of a run: it validates and saves a checkpoint of its own in the middle and at the
            end, and is not tested.
    """

    folder: Path
    steps: int

    @property
    def settings(self) -> Path:
        """The file over the shipped base, written anew."""
        half = (self.steps + 1) // 2
        checkpoint = {"save_last": True, "every_n_train_steps": half, "save_top_k": 0}
        values = {
            "data": {"init_args": {"steps_per_epoch": half, "num_val_samples": 32}},
            "trainer": {
                "max_steps": 2 * half,
                "val_check_interval": half,
                "limit_test_batches": 0,
                "accelerator": "cpu",
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "callbacks": [
                    *map(dict, _CALLBACKS),
                    {
                        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                        "init_args": checkpoint,
                    },
                ],
            },
        }
        return write(self.folder / "settings.yaml", values)

    def fit(self, name: str, rate: float, seed: int) -> list[str]:
        """Return the command of a plain run in ``folder/name``, the same as the grid's cell."""
        output = str(self.folder / name)
        logger = {"save_dir": output, "name": "", "version": "", "default_hp_metric": False}
        values = {
            "seed_everything": seed,
            "model": {"init_args": {"optimizer": {"init_args": {"lr": rate}}}},
            "data": {"init_args": {"seed": seed}},
            "trainer": {
                "default_root_dir": output,
                "logger": {
                    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                    "init_args": logger,
                },
            },
        }
        cell_file = write(self.folder / f"{name}.yaml", values)
        files = [word for file in (BASE, self.settings, cell_file) for word in ("-c", str(file))]
        return pretzel("fit", *files)

    def grid(self, name: str, rates: Sequence[float], seeds: Sequence[int]) -> Path:
        """Return the file of a grid of learning rates and seeds that runs in ``folder/name``."""
        arms = {f"arm{n}": {_RATE: rate} for n, rate in enumerate(rates)}
        return write(
            self.folder / f"{name}.yaml",
            {
                "base": [str(BASE), str(self.settings)],
                "axes": {"rate": arms},
                "seeds": list(seeds),
                "baseline": {"rate": "arm0"},
                "metrics": {"train/loss": "min"},
                "output": str(self.folder / name),
            },
        )

    def finished(self, name: str, arms: int, seeds: int) -> Path:
        """Return the file of a grid whose cells are all done; nothing has been trained.

        Args:
            name: Of the grid.
            arms: Number of arms.
            seeds: Number of seeds.
        """
        small = plan_grid(load(self.grid(name, [1e-5], [0])), lambda done, total: None)
        like = small.compared[0]
        rates = [1e-5 * (n + 1) for n in range(arms)]
        grid = load(self.grid(name, rates, range(seeds)))
        cells = tuple(
            replace(like, name=f"arm{arm}/seed{seed}", arm=f"arm{arm}", seed=seed)
            for arm in range(arms)
            for seed in range(seeds)
        )
        names = [f"arm{arm}" for arm in range(arms)]
        arm = small.arms["arm0"]
        planned = {name: replace(arm, choices={"rate": name}) for name in names}
        files = {path: file_hash(Path(path)) for path in small.files}  # the grid's is another now
        plan = replace(small, grid=grid, compared=cells, arms=planned, files=files)
        plan.save()
        marks = {"identity": like.identity, "evaluation": like.evaluation}
        metrics = {f"test/metric{n}": n / 7 for n in range(12)}
        step = {"step": self.steps, "total": self.steps, "seconds": 60.0, "metrics": metrics}
        for cell in plan.compared:
            folder = RunFolder(path=grid.output / cell.name)
            with folder.lease():
                folder.prepare({**marks, "config": cell.config, "fingerprint": cell.record})
                write_json(folder.path / "progress.json", {"phase": "test", **step})
                hashes = {"step": 4, "first": cell.arm, "final": cell.name}
                result = {**marks, "metrics": metrics, "steps": self.steps, "weights": hashes}
                write_result(folder.path, result)
        return grid.file


def pretzel(*words: str) -> list[str]:
    """Return a command of this project."""
    return [sys.executable, "-m", "pretzel", *words]


def write(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a YAML file."""
    path.write_text(yaml.safe_dump(dict(values)))
    return path
