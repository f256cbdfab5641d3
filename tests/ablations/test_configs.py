"""Every YAML under ablations/ parses, builds and trains two steps."""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import yaml
from doc_pages import pages
from text_encoders import CHANNELS, save_tiny_t5

from pretzel.__main__ import main
from pretzel.ablation.gridfile import reading
from pretzel.ablation.ledger import RunFolder
from pretzel.ablation.planning.grid_to_plan import plan_grid
from pretzel.ablation.planning.plan import Plan, PlannedRun
from pretzel.ablation.worker.training import train_and_test
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import Config, fold, read

ROOT = Path(__file__).parents[2]
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"
SHRINK_PAPER = ROOT / "tests" / "configs" / "shrink_paper.yaml"
PAPER = sorted((ROOT / "ablations" / "paper").glob("*.yaml"))
ALL = sorted((ROOT / "ablations").rglob("*.yaml"))


def content(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


GRIDS = [path for path in ALL if "axes" in content(path)]
WHOLE = [
    path for path in ALL if "class_path" in content(path).get("model", {}) and path not in PAPER
]
OVERLAYS = [path for path in ALL if path not in GRIDS + WHOLE + PAPER]
ELSEWHERE = ("own_data", "fae_features", "fae_pixels")  # test_own_data.py, test_fae_stages.py


def part(node: dict, *keys: str) -> dict:
    """Return a part of a resolved configuration, whether or not a class_path stands between."""
    for key in keys:
        node = node.get("init_args", node)[key]
    return node


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shrunk(callbacks: list[dict]) -> list[dict]:
    """Keep every callback, ask fewer questions and draw fewer pictures."""
    small = {
        "ConversationAccuracy": {"num_conversations": 1},
        "EditAccuracy": {"num_images": 2, "every_n_validations": 1},
        "Generation": {"num_images": 4, "batch_size": 4},
        "SkipAnalysis": {"num_samples": 4},
        "OwnImages": {"num_images": 2},
        "LinearProbe": {"every_n_validations": 1000},  # too few samples are left to fit on
        "Reconstructions": {"num_images": 8, "num_shown": 2},
        "SampleGrid": {"num_images": 2, "columns": 2},
        "TextDrift": {"num_samples": 4},
        # The blind baseline reads all of the training questions, and with them the images
        "VQAAccuracy": {
            "num_questions": 8,
            "num_validation_questions": 8,
            "blind_baseline": False,
        },
    }
    for callback in callbacks:
        arguments = small.get(callback["class_path"].rpartition(".")[2], {})
        if arguments:
            callback.setdefault("init_args", {}).update(arguments)
    return callbacks


GENERATING = ("ConversationAccuracy", "Generation", "OwnImages")


def overlay(config: dict, folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Write the shrinking overlay for a configuration whose callbacks must survive."""
    small = content(SHRINK)
    callbacks = config.get("trainer", {}).get("callbacks")
    if callbacks:
        kept = [c for c in callbacks if not c["class_path"].endswith(without)]
        small["trainer"]["callbacks"] = shrunk(kept)
    small["trainer"]["default_root_dir"] = str(folder)
    path = folder / "shrink.yaml"
    path.write_text(yaml.safe_dump(small))
    return path


# tests/training/test_stages.py chains them.
STAGES = ("s1", "s2", "s3", "conversations", "vlm_turns")
CHAINED = [ROOT / "ablations" / "stages" / f"{name}.yaml" for name in STAGES]
CHAINED.append(ROOT / "ablations" / "base" / "turns.yaml")


def test_every_overlay_is_laid_over_something_that_is_tested():
    in_grids = {
        file.resolve()
        for grid in map(reading.load, GRIDS)
        for files in (
            grid.base,
            *grid.chain.values(),
            *(stage.files for stage in grid.stages.values()),
        )
        for file in files
    }
    documented = "".join(pages().values())  # whose commands tests/docs runs
    unused = [
        path
        for path in OVERLAYS
        if path not in CHAINED and path.resolve() not in in_grids and name(path) not in documented
    ]
    assert unused == []


@pytest.mark.parametrize("path", [p for p in WHOLE if p.stem not in ELSEWHERE], ids=name)
def test_a_configuration_trains(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = overlay(content(path), tmp_path)
    assert main(["fit", "-c", str(path), "-c", str(small)]) == 0


def test_edits_of_scenes_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [
        ROOT / "ablations" / f"{file}.yaml"
        for file in ("base/easy_vqa", "base/scenes", "stages/edits")
    ]
    files.append(overlay(content(files[-1]), tmp_path))
    assert main(["fit", *(word for file in files for word in ("-c", str(file)))]) == 0


# Trainable parameters in millions, and how closely the fact is known.
SIZES = {
    "tarflow_imagenet64": (460.14, 0.005),
    "starflow_1b": (1420.0, 7.0),  # 1,414.4: published as 1.4 B
    "starflow_3b": (3860.0, 5.0),
    "starflow2": (3557.48, 0.01),  # published as 3.6 B
    "fae_features": (181.94, 0.005),
}


def overlays_in_comments(path: Path) -> list[str]:
    """Return what the comments of a file say must be laid over it to train."""
    lines = [line.strip().removeprefix("#") for line in path.read_text().splitlines()]
    starts = [i + 1 for i, line in enumerate(lines) if "To train, lay over it" in line]
    return ["\n".join(lines[start : start + 2]) for start in starts]


@pytest.mark.parametrize("path", [path for path in PAPER if path.stem in SIZES], ids=name)
def test_a_configuration_of_paper_size_has_its_parameters(path):
    model = built_on_meta(fold([read(path)]))
    count = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    expected, tolerance = SIZES[path.stem]
    assert abs(count - expected) <= tolerance


def test_tarflow_with_a_thousand_classes_has_its_parameters(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(map(str, range(1000))))
    vector = {
        "class_path": "pretzel.flow.ClassVector", "init_args": {"num_classes": 1000}
    }  # fmt: skip
    context = {"class_path": "pretzel.flow.AddedContext", "init_args": {"vector": vector}}
    config = fold([read(ROOT / "ablations" / "paper" / "tarflow_imagenet64.yaml")])
    node = config.values["model"]["init_args"]["pretzel"]["init_args"]
    for block in ("shallow", "deep"):
        node[block] = copy.deepcopy(node[block])
        node[block]["init_args"]["context"] = context
    node["condition"] = {
        "class_path": "pretzel.tarflow.ClassNames",
        "init_args": {"names": str(tmp_path / "names.txt")},
    }
    model = built_on_meta(config)
    assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - 466.3) < 0.05


def built_on_meta(config: Config) -> torch.nn.Module:
    """Build the model of a configuration with the command line's parser, without memory."""
    cli = ParseOnlyCLI()
    with torch.device("meta"):
        return cli.build_model("fit", cli.parse("fit", config))


# test_paper_starflow2.py and test_paper_fae.py train the others, which need small networks beside.
FLOWS = [path for path in PAPER if path.stem.startswith(("tarflow", "starflow_"))]


@pytest.mark.parametrize("path", FLOWS, ids=name)
def test_a_configuration_of_paper_size_trains_when_shrunk(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = content(path)
    small = [overlay(own, tmp_path), SHRINK_PAPER]
    condition = part(own["model"], "pretzel", "condition")
    if condition["class_path"] == "pretzel.tarflow.TextEncoder":
        # The encoder itself cannot be had here: a real one of the same kind takes its place.
        save_tiny_t5(tmp_path / "t5")
        encoder = {"name": str(tmp_path / "t5"), "channels": CHANNELS, "length": 8}
        context = {"init_args": {"context": {"init_args": {"channels": CHANNELS}}}}
        nodes = {"condition": {"init_args": encoder}, "deep": context}
        model = {"init_args": {"pretzel": {"init_args": nodes}}}
        small.append(tmp_path / "text.yaml")
        small[-1].write_text(yaml.safe_dump({"model": model}))
    files = [argument for file in (path, *small) for argument in ("-c", str(file))]
    assert main(["fit", *files]) == 0


TRAINED: dict[str, Path] = {}  # of stages the folder, of arms any
PARTS: set[frozenset[str]] = set()


def without_numbers(node: object) -> object:
    if isinstance(node, dict):
        return {key: without_numbers(value) for key, value in node.items()}
    if isinstance(node, list):
        items = [without_numbers(value) for value in node]
        return [0] if items and all(item == 0 for item in items) else items
    return 0 if isinstance(node, int | float) and not isinstance(node, bool) else node


def kind(config: dict) -> str:
    """Return what is equal of configurations that run the same code, whichever grid they are of.

    They differ in numbers alone, and in where they are read and written.
    """
    known = config | {"trainer": config["trainer"] | {"default_root_dir": None, "logger": None}}
    return re.sub(r"runs/[\w/.-]+", "", json.dumps(without_numbers(known), sort_keys=True))


def classes(node: object) -> Iterator[str]:
    """Yield the classes that a configuration names."""
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for value in values:
        yield from classes(value)
    if isinstance(node, dict) and "class_path" in node:
        yield node["class_path"]


def small_arm(plan: Plan, run: PlannedRun, folder: Path) -> dict:
    """Return the configuration of an arm, shrunk.

    Generated images are measured in the baseline alone. An arm whose model has the classes of one
    before, and other numbers or flags, is not validated.
    """
    is_baseline = run.name.startswith(f"{plan.grid.baseline_name}/")
    file = overlay(copy.deepcopy(run.config), folder, () if is_baseline else GENERATING)
    small = fold([Config(values=run.config), read(file)]).values
    parts = frozenset(classes(run.config["model"]))
    if parts in PARTS and not is_baseline:
        small["trainer"]["limit_val_batches"] = 0
    PARTS.add(parts)
    return small


def train_stage(plan: Plan, run: PlannedRun, tmp: Path) -> None:
    """Train and export a stage as the grid's own process does, once for all grids."""
    small = fold([Config(values=run.config), read(overlay(copy.deepcopy(run.config), tmp))]).values
    small["trainer"]["limit_val_batches"] = 0  # what the next stage begins with is trained
    folder, text = RunFolder(path=plan.grid.output / run.name), json.dumps(small, sort_keys=True)
    same = re.sub(r"runs/[\w-]+/|" + re.escape(str(tmp)), "", text)
    if same in TRAINED:
        shutil.copytree(TRAINED[same], folder.path)
        return
    folder.path.mkdir(parents=True)
    spec = {"config": small, "export": True, "checkpoint_seconds": 1000.0}
    train_and_test(folder, spec, lambda: False)
    TRAINED[same] = folder.path.absolute()
    own = run.config["model"]["init_args"].get("export_to")
    assert own is None or not Path(own).exists()  # what a user's own run has left there


@cache
def planned(path: Path) -> Plan:
    with TemporaryDirectory() as folder, chdir(folder):
        return plan_grid(reading.load(path))


@pytest.mark.parametrize("path", GRIDS, ids=name)
def test_every_arm_of_a_grid_trains_after_its_stages(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = planned(path)  # parses and builds all of them
    assert plan.warnings == ()  # every part says which metrics it logs
    runs = {run.name: run for run in plan.runs}
    arms = {}
    for cell in plan.compared:
        if cell.seed == plan.grid.seeds[0]:
            small = small_arm(plan, cell, tmp_path)
            if (text := kind(small)) not in TRAINED:
                TRAINED[text], arms[cell.name] = tmp_path, small
    wanted = [*arms]
    for name in wanted:  # grows while it is read
        wanted += [need for need in runs[name].needs if need not in wanted]
    for name, run in runs.items():
        # Candidates of a tuned arm differ from it in a number
        if name not in wanted or name.startswith("tuning/"):
            continue
        if run.export:
            train_stage(plan, run, tmp_path)
        else:
            (tmp_path / "cell.yaml").write_text(yaml.safe_dump(arms[name]))
            assert main(["fit", "-c", str(tmp_path / "cell.yaml")]) == 0, name


def test_the_seeds_of_all_arms_see_the_same_data_and_noise():
    for path in GRIDS:
        for cell in planned(path).compared:
            assert cell.config["data"]["init_args"]["seed"] == cell.seed, cell.name
            assert cell.config["model"]["init_args"]["seed"] == cell.seed, cell.name
