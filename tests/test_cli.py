"""The command line: runs, and one clear sentence for every mistake, with nothing left behind."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Union

import pytest
import torch
import yaml

from pretzel.__main__ import main
from pretzel.runs.cli import RunCLI

sys.path.insert(0, str(Path(__file__).parent / "ablation"))
from lab_files import BASE, project, write  # noqa: F401

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning",
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec.",
    "ignore:You're resuming from a checkpoint that ended before the epoch ended",
    "ignore:The dirpath has changed",
    "ignore:Checkpoint directory .* exists and is not empty",
)


@pytest.fixture
def folder(project):  # noqa: F811
    return project


def changed(**at):
    """Return BASE with dotted keys (double underscores for dots) set, or deleted with None."""
    import copy

    values = copy.deepcopy(BASE)
    for key, value in at.items():
        node = values
        *parts, last = key.split("__")
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = value
    return values


def refused(capsys, folder, *args):
    """Run a command that must be refused; return its one sentence."""
    before = sorted(str(path) for path in folder.rglob("*"))
    assert main(list(args)) == 2
    out = capsys.readouterr()
    lines = [line for line in out.err.splitlines() if line.startswith("pretzel: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in out.err + out.out
    assert sorted(str(path) for path in folder.rglob("*")) == before
    return lines[0]


def test_fit_then_test_with_its_checkpoint(folder, capsys):
    assert main(["fit", "-c", "base.yaml"]) == 0
    run = folder / "lightning_logs" / "version_0"
    checkpoint = next(run.glob("checkpoints/*.ckpt"))
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["init_args"]["features"]["init_args"] == {"scale": 3.0, "offset": 0.5}
    assert list(run.glob("events.out.tfevents.*"))
    # continue in the same folder: its config.yaml is no obstacle
    logger = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": str(folder), "version": 0},
    }
    timer = {"class_path": "Timer", "init_args": {"duration": "00:00:10:00"}}
    write("same.yaml", {"trainer": {"logger": logger, "max_steps": 8, "callbacks+": timer}})
    more = ["-c", "same.yaml", "--ckpt_path", str(checkpoint)]
    assert main(["fit", "-c", "base.yaml", *more]) == 0
    trainer = yaml.safe_load((run / "config.yaml").read_text())["trainer"]
    assert trainer["max_steps"] == 8
    assert trainer["callbacks"][0]["init_args"]["interval"] == "step"  # a text and an enum at once
    assert not (folder / "lightning_logs" / "version_1").exists()
    assert main(["test", "-c", "base.yaml", "--ckpt_path", str(checkpoint)]) == 0
    assert "test/loss" in capsys.readouterr().out


def test_files_are_folded_before_parsing(folder, capsys):
    # Linear(scale=3) and Cubic(scale=1 by default) share `scale`: a leak would keep 3
    write("swap.yaml", {"model": {"init_args": {"features": {"class_path": "lab.Cubic"}}}})
    assert main(["fit", "-c", "base.yaml", "-c", "swap.yaml", "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["init_args"]["features"] == {
        "class_path": "lab.Cubic",
        "init_args": {"scale": 1.0, "power": 3},
    }


def test_lists_are_appended_to_by_files_and_arguments(folder, capsys):
    monitor = {"class_path": "LearningRateMonitor"}
    write("one.yaml", {"trainer": {"callbacks": [monitor]}})
    write("two.yaml", {"trainer.callbacks+": monitor, "trainer.callbacks.0.log_momentum": True})
    more = ["--trainer.callbacks+=Timer", "--trainer.callbacks.verbose=false",
            "--trainer.callbacks.1.log_weight_decay", "true", "--model.features", "{}"]  # fmt: skip
    files = [word for name in ("base", "one", "two") for word in ("-c", f"{name}.yaml")]
    assert main(["fit", *files, *more, "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    first, second, timer = shown["trainer"]["callbacks"]
    assert shown["model"]["init_args"]["features"]["init_args"]["scale"] == 1.0  # no longer 3
    settings = [
        (one["init_args"]["log_momentum"], one["init_args"]["log_weight_decay"])
        for one in (first, second)
    ]
    assert settings == [(True, False), (False, True)]
    assert timer["init_args"]["verbose"] is False


@pytest.mark.parametrize(
    "swap",
    [
        ["--model.init_args.features.class_path", "lab.Cubic"],
        ["--model.init_args.features", "lab.Cubic"],
        ["--model.features=lab.Cubic"],
        ["--model.features", '{"class_path": "lab.Cubic"}'],
    ],
)
def test_class_swap_on_the_command_line_is_refused(folder, capsys, swap):
    said = refused(capsys, folder, "fit", "-c", "base.yaml", *swap)
    assert "lab.Cubic swaps lab.Linear" in said
    assert "put the swap in a YAML file" in said


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (changed(trainer__max_stepss=3),
         r"x\.yaml:\d+: trainer\.max_stepss: unknown key \(value 3\)"
         r"; did you mean 'trainer\.max_steps'\?"),
        (changed(modle=3), r"x\.yaml:\d+: modle: unknown key \(value 3\); did you mean 'model'\?"),
        (changed(model__init_args__lrr=3),
         r"x\.yaml:\d+: model\.init_args\.lrr: lab\.LeastSquares has no parameter 'lrr' "
         r"\(value 3\); did you mean 'lr'\?"),
        (changed(model__init_args__features__init_args__scael=3),
         r"x\.yaml:\d+: model\.init_args\.features\.init_args\.scael: .*\(value 3\)"
         r"; did you mean 'scale'\?"),
        (changed(model__init_args__features__class_path="lab.Linaer"),
         r"features\.class_path: no such class 'lab\.Linaer'; did you mean 'lab\.Linear'\?"),
        (changed(model__class_path="lba.LeastSquares"),
         r"x\.yaml:\d+: model\.class_path: no such class 'lba\.LeastSquares'"),
        (changed(model__class_path="lab_without_a_module.Model"),
         r"'lab_without_a_module\.Model' cannot be imported: it needs module 'no_such_package'"),
        (changed(model__init_args__features__class_path="Cubci"),
         r"features\.class_path: no such class 'Cubci'"),
        (changed(model__init_args__features__class_path="lab.Line"),
         r"features\.class_path: 'lab\.Line' is no Features"),
        (changed(model__init_args__features__class_path="os.system"),
         r"x\.yaml:\d+: model\.init_args\.features\.class_path: 'os\.system' is no Features"),
        (changed(model__init_args__features={
            "class_path": "shutil.rmtree", "init_args": {"path": "."}}),
         r"x\.yaml:\d+: model\.init_args\.features\.class_path: 'shutil\.rmtree' is no Features"),
        (changed(trainer__callbacks=[{
            "class_path": "LambdaCallback", "init_args": {"on_train_start": {
                "class_path": "os.system", "init_args": {"command": "touch executed"}}}}]),
         r"x\.yaml:\d+: trainer\.callbacks\..*on_train_start.*: 'os\.system' is no part that goes"),
        (changed(config="base.yaml"), r"x\.yaml:\d+: config: a configuration takes no other in"),
        (changed(model__init_args__lr="fast"),
         r"x\.yaml:\d+: model\.init_args\.lr: expected float, got 'fast'"),
        (changed(trainer__max_steps="many"),
         r"x\.yaml:\d+: trainer\.max_steps: expected int, got 'many'"),
        (changed(trainer__callbacks=[
            {"class_path": "ModelCheckpoint", "init_args": {"monitr": "x"}}]),
         r"trainer\.callbacks\.0\.init_args\.monitr: .* \(value 'x'\); did you mean 'monitor'\?"),
        (changed(trainer__callbacks=["callbacks.EMAWeightAveraging", "EMAWeightAveraging"]),
         r"x\.yaml:10: trainer\.callbacks\.1: 'EMAWeightAveraging' could be any of .*: write the "),
        (changed(trainer__callbacks=[
            {"class_path": "ModelCheckpoint", "init_args": {"verbose": on}} for on in (True, "x")]),
         r"x\.yaml:14: trainer\.callbacks\.1\.init_args\.verbose: expected bool, got 'x'"),
        (changed(trainer__callbacks=[
            {"class_path": "Timer", "init_args": {"duration": t}} for t in ("00:00:09:09", "x")]),
         r"x\.yaml:14: trainer\.callbacks\.1\.init_args\.duration: Timer: .*'x'.* not a valid dur"),
        (changed(trainer__callbacks=["Timer", {"class_path": "Timre"}]),
         r"x\.yaml:10: trainer\.callbacks\.1.*: no such class 'Timre'; did you mean 'lightning"),
        (changed(model__init_args={"lr": 1.0}), r"model.*LeastSquares needs features"),
        ({"trainer": {"max_steps": 1}}, r"x.yaml: missing data, model|error: missing data, model"),
        (changed(model__init_args__features={"class_path": "lab.Cubic", "init_args": {"power": 0}}),
         r"x\.yaml:\d+: model\.init_args\.features\.init_args\.power: Cubic: "
         r"power must be at least 1, got 0"),
        (changed(trainer__accumulate_grad_batches=2),
         r"x\.yaml:\d+: trainer\.accumulate_grad_batches must be 1 for LeastSquares, got 2: "),
        (changed(trainer__val_check_interval=1.5),
         r"x\.yaml:\d+: trainer\.val_check_interval: Trainer: .*1\.5"),
        (changed(trainer__val_check_interval=5),
         r"trainer\.val_check_interval: must be at most the 4 batches of an epoch, .*, got 5$"),
        (changed(trainer__val_check_interval=2, trainer__overfit_batches=1),
         r"trainer\.val_check_interval: must be at most the 1 batches of an epoch, .*, got 2$"),
        (changed(optimizer={"class_path": "SGD"}),
         r"x\.yaml:\d+: optimizer: LeastSquares makes its own, and takes no argument for it"),
        (changed(data__init_args__shards="a.tar"), r"shards: a\.tar: no such shard"),
        (changed(trainer__default_root_dir="base.yaml/runs"),
         r"trainer\.default_root_dir: base\.yaml/runs: cannot be written"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(folder, capsys, values, expected):
    write("x.yaml", values)
    assert re.search(expected, refused(capsys, folder, "fit", "-c", "x.yaml"))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["export", "LONG", "--out", "x"], "argument run"),
        (["export", "run", "--out", "a/LONG"], "argument --out"),
        (["import", "tarflow", "LONG", "--out", "x"], "argument FILE"),
        (["import", "tarflow", "base.yaml", "--out", "LONG"], "argument --out"),
        (["sample", "--ckpt_path", "LONG", "--prompt", "x"], "argument --ckpt_path"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(folder, capsys, args, named):
    said = refused(capsys, folder, *(word.replace("LONG", "n" * 256) for word in args))
    assert f"{named}: a name in a path may have 255 bytes at most, got one of 256" in said


def test_a_configuration_names_no_sharded_checkpoint(folder, capsys):
    (folder / "sharded").mkdir()
    (folder / "sharded" / ".metadata").touch()
    write("x.yaml", changed(ckpt_path="sharded"))
    said = refused(capsys, folder, "fit", "-c", "x.yaml")
    assert re.search(r"x\.yaml:\d+: ckpt_path: sharded is a sharded checkpoint, which torch", said)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["fit", "-c", "bsae.yaml"], r"bsae\.yaml: no such file"),
        (["fit", "-c"], r"-c needs a file"),
        (["fti"], r"unknown command 'fti'; did you mean 'fit'\?"),
        (["fit", "-c", "base.yaml", "--trainer.max_stepss=3"],
         r"unknown argument '--trainer\.max_stepss=3'; did you mean '--trainer\.max_steps'\?"),
        (["fit", "-c", "base.yaml", "--model.lr", "fast"],
         r"command line: model\.init_args\.lr: expected float, got 'fast'"),
        (["test", "-c", "base.yaml", "--ckpt_path", "none.ckpt"], r"none\.ckpt: no such file"),
        (["test", "-c", "base.yaml", "--ckpt_path", "base.yaml"],
         r"base\.yaml: not a weights-only checkpoint"),
        (["test", "-c", "base.yaml", "--ckpt_path", "best"],
         r"ckpt_path: best is known to the process that trained alone: name the file"),
        (["test", "-c", "base.yaml", "--ckpt_path", "last"], r"last: no last checkpoint where"),
        (["test", "-c", "base.yaml", "--ckpt_path", "."],
         r"ckpt_path: \.: neither a run nor an export"),
        (["fit", "-c", "base.yaml", "--lr_scheduler=ConstantLR"],
         r"command line: lr_scheduler: LeastSquares makes its own, and takes no argument for it"),
        (["fit", "-c", "base.yaml", "--trainer.callbacks.2.verbose", "1"],
         r"command line: trainer\.callbacks\.2: no such item"),
        (["fit", "-c", "base.yaml", "--trainer.default_root_dir", "/proc/pretzel"],
         r"default_root_dir: /proc/pretzel: cannot be written"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(folder, capsys, args, expected):
    assert re.search(expected, refused(capsys, folder, *args))


def test_checkpoint_of_another_architecture(folder, capsys):
    torch.save({"state_dict": {"weight": torch.zeros(7)}}, "other.ckpt")
    said = refused(capsys, folder, "test", "-c", "base.yaml", "--ckpt_path", "other.ckpt")
    assert re.search(r"other\.ckpt: .*weight is \[7\] there and \[3\] in LeastSquares", said)
    torch.save({"state_dict": {"foreign": torch.zeros(3)}}, "other.ckpt")
    said = refused(capsys, folder, "fit", "-c", "base.yaml", "--ckpt_path", "other.ckpt")
    assert "it holds foreign, which LeastSquares does not have" in said
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, "other.ckpt")
    said = refused(capsys, folder, "fit", "-c", "base.yaml", "--ckpt_path", "other.ckpt")
    assert "other.ckpt: holds weights without the state of the optimizer" in said


def test_a_link_to_nothing_is_no_folder(folder, capsys):
    Path("link").symlink_to("nowhere")
    said = refused(capsys, folder, "fit", "-c", "base.yaml", "--trainer.default_root_dir", "link/x")
    assert re.search(
        r"default_root_dir: link/x: cannot be written \(.*link is a link to nothing", said
    )


STOPPING = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
BEST = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss", "dirpath": "best"}}


@pytest.mark.parametrize("callback", [STOPPING, BEST])
def test_selection_on_files_of_test_is_refused(folder, capsys, monkeypatch, callback):
    import lab

    (folder / "shards").mkdir()
    for name, content in (("val", "a"), ("test", "b"), ("copy", "a")):
        (folder / "shards" / name).write_text(content)
    files = {"train": ["train"], "val": ["shards/val"], "test": ["shards/test", "shards/copy"]}
    monkeypatch.setattr(lab.Filed, "files", files)
    write("x.yaml", changed(trainer__callbacks=[callback], data__class_path="lab.Filed"))
    name = callback["class_path"]
    assert re.search(
        rf"x\.yaml:\d+: trainer\.callbacks\.0\.init_args\.monitor: {name} by val/loss would select "
        r"on test data: data reads val for val and for test; give val files of its own$",
        refused(capsys, folder, "fit", "-c", "x.yaml"),
    )
    for harmless in ({"monitor": "train/loss"}, {"save_top_k": 0}):
        if harmless.keys() <= callback["init_args"].keys() or callback is BEST:
            chosen = {**callback, "init_args": callback["init_args"] | harmless}
            write("x.yaml", changed(trainer__callbacks=[chosen], data__class_path="lab.Filed"))
            assert main(["fit", "-c", "x.yaml"]) == 0


def test_a_full_disk_loses_no_checkpoint(folder, capsys, monkeypatch):
    checkpoint = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": "kept", "every_n_train_steps": 2, "save_last": True},
    }
    checkpoint["init_args"]["save_top_k"] = 0
    write("x.yaml", changed(trainer__callbacks=[checkpoint]))
    write_bytes, writes = Path.write_bytes, []

    def fill_up(path, data):
        writes.append(path)
        if len(writes) < 2:
            return write_bytes(path, data)
        write_bytes(path, bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    assert main(["fit", "-c", "x.yaml"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be written (No space left on device), stopped at step 4" in said
    assert [path.name for path in (folder / "kept").iterdir()] == ["last.ckpt"]
    assert torch.load(folder / "kept" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_pickled_code_in_a_checkpoint_is_not_run(folder, capsys):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (folder / "exploded",))

    torch.save({"state_dict": {}, "bomb": Bomb()}, "bomb.ckpt")
    said = refused(capsys, folder, "test", "-c", "base.yaml", "--ckpt_path", "bomb.ckpt")
    assert "not a weights-only checkpoint" in said


def test_bugs_keep_their_traceback(folder):
    write("x.yaml", changed(model__init_args__features={"class_path": "lab.Broken"}))
    with pytest.raises(RuntimeError, match="the arm exploded"):
        main(["fit", "-c", "x.yaml"])


def test_interrupt_stops_gracefully(folder, capsys, monkeypatch):
    import lab

    def interrupt(self, batch, batch_idx):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return self.loss(batch)

    monkeypatch.setattr(lab.LeastSquares, "training_step", interrupt)
    assert main(["fit", "-c", "base.yaml"]) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("pretzel: interrupted at step 2; continue with --ckpt_path")


def test_a_test_that_is_interrupted_names_nothing_to_go_on_from(folder, capsys, monkeypatch):
    import lab

    def interrupt(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(lab.LeastSquares, "test_step", interrupt)
    assert main(["fit", "-c", "base.yaml"]) == 0
    (checkpoint,) = map(str, folder.rglob("*.ckpt"))
    assert main(["test", "-c", "base.yaml", "--ckpt_path", checkpoint]) == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "pretzel: interrupted"


class Misled(RunCLI):
    """Sees the Trainer's ``int | float`` in the order that `typing` cached for another library."""

    def parse_arguments(self, parser, args):
        for action in self._subcommand_parsers["fit"]._actions:
            if action.dest == "trainer.limit_val_batches":
                action._typehint = Union[(float, int, None)]  # noqa: UP007  # an order of its own
        super().parse_arguments(parser, args)

    def _run_subcommand(self, subcommand):
        """Only build."""


@pytest.mark.parametrize(
    "args",
    [
        ["fit", "-c", "base.yaml", "-c", "limit.yaml"],
        ["fit", "-c", "base.yaml", "--trainer.limit_val_batches=1"],
        {"subcommand": "fit", "fit": changed(trainer__limit_val_batches=1)},
    ],
    ids=["file", "argument", "values"],
)
def test_one_batch_is_not_all_batches(folder, args):
    write("limit.yaml", {"trainer": {"limit_val_batches": 1}})
    cli = Misled(args)
    for limit in (
        cli.trainer.limit_val_batches,
        cli.resolved("fit", cli.config)["trainer"]["limit_val_batches"],
    ):
        assert isinstance(limit, int)
        assert limit == 1


def test_help_is_quick_and_light():
    # in a fresh process: neither torch nor lightning
    check = (
        "import sys; from pretzel.__main__ import main\n"
        "main(['--help']); main(['grid', '--help'])\n"
        "heavy = {'torch', 'lightning', 'scipy', 'jsonargparse'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    start = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - start < 6  # two helps, on a busy machine
    for word in ("fit", "grid", "compare"):
        assert word in shown.stdout


@pytest.mark.parametrize(
    ("args", "buffering"),
    [
        (["--help"], []),
        (["--help"], ["-u"]),
        (["grid", "--help"], ["-u"]),
        (["--print-completion", "bash"], []),  # more than a buffer holds
    ],
)
def test_a_reader_that_is_gone_is_no_error(args, buffering):
    reader, writer = os.pipe()
    os.close(reader)  # as `pretzel --help | head` does
    with os.fdopen(writer, "w") as gone:
        command = [sys.executable, *buffering, "-m", "pretzel", *args]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
