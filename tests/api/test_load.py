"""What `pretzel.load` and `load_from_checkpoint` accept, and what they refuse in one sentence."""

import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer

import pretzel
from pretzel.errors import UserError
from pretzel.runs.run_folder import weights_of
from pretzel.training import PretzelModule


def weights(model):
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def test_the_newest_weights_of_a_run_are_taken(tmp_path):
    run = tmp_path / "grid" / "arm" / "seed0"
    (run / "checkpoints").mkdir(parents=True)
    (tmp_path / "grid" / "plan.json").write_text("{}")
    oldest_first = [
        "checkpoints/epoch=9-step=90.ckpt", "checkpoints/epoch=10-step=100.ckpt",
        "checkpoints/last.ckpt", "checkpoints/last-v1.ckpt",
        "previous.ckpt", "last.ckpt", "final.ckpt", "weights.safetensors",
    ]  # fmt: skip
    for name in oldest_first:
        (run / name).write_text("")
        assert weights_of(run) == (run / name, None)
    (run / "config.yaml").write_text("{}")
    assert weights_of(run / "last.ckpt") == (run / "last.ckpt", run / "config.yaml")
    with pytest.raises(UserError, match=r"grid: neither a run .*; did you mean .*arm/seed0\?"):
        weights_of(tmp_path / "grid")


def test_importing_pretzel_is_light():
    code = (
        "import sys, pretzel; pretzel.__version__, dir(pretzel), pretzel.UserError;"
        "sys.exit(str({'torch', 'lightning', 'jsonargparse', 'pandas'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "0"


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(pretzel, name) is not None for name in pretzel.__all__)
    assert set(pretzel.__all__) <= set(dir(pretzel))
    with pytest.raises(AttributeError, match=r"module 'pretzel' has no attribute 'lod'"):
        pretzel.lod  # noqa: B018


def test_a_run_gives_its_newest_checkpoint(run):
    model = pretzel.load(run)
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    for name, value in weights(model).items():
        assert torch.equal(value, saved["state_dict"][name]), name  # the averages
    assert not model.module.training
    assert model.config == yaml.safe_load((run / "config.yaml").read_text())["model"]


def test_every_checkpoint_loads_without_further_arguments(run):
    checkpoints = sorted((run / "checkpoints").glob("*.ckpt"))
    assert len(checkpoints) == 3
    for path in checkpoints:
        module = PretzelModule.load_from_checkpoint(path)
        saved = torch.load(path, weights_only=True)["state_dict"]
        assert module.state_dict().keys() == saved.keys()
        assert all(torch.equal(value, saved[name]) for name, value in module.state_dict().items())


def test_loading_leaves_the_random_state_alone(run):
    before = torch.get_rng_state()
    pretzel.load(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_export_is_a_folder_of_weights_and_configuration(run, tmp_path):
    model = pretzel.load(run)
    export = tmp_path / "export"
    export.mkdir()
    model.module.export(export / "weights.safetensors")
    with pytest.raises(UserError, match=r"no config\.yaml lies beside it"):
        pretzel.load(export)
    named = {"model": model.config | {"init_args": dict(model.config["init_args"])}}
    named["model"]["init_args"]["weights"] = "weights.safetensors"
    (export / "config.yaml").write_text(yaml.safe_dump(named))
    for path in (export, export / "weights.safetensors"):
        assert same(weights(pretzel.load(path)), weights(model))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_a_checkpoint_of_a_trainer_in_python_needs_a_configuration(run, config, tmp_path):
    module = pretzel.load(run).module
    module.configuration = None
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt holds no configuration of a PretzelModule"):
        pretzel.load(tmp_path / "x.ckpt")
    model = pretzel.load(tmp_path / "x.ckpt", config=config)
    assert same(weights(model), module.state_dict())


def test_a_built_model_begins_as_fit_does(config):
    first, second, other = (pretzel.build(config, seed=seed) for seed in (0, 0, 1))
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))
    values = yaml.safe_load(yaml.safe_dump(first.config))  # plain types alone
    for given in (values, {"model": values, "seed_everything": 1}):
        assert pretzel.build(given).config == first.config
    assert same(weights(pretzel.build({"model": values, "seed_everything": 1})), weights(other))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("none", r"none: no such run, export or checkpoint"),
        (".", r"neither a run nor an export; did you mean .*version_0\?"),
        ("empty", r"empty: neither a run nor an export \(no weights\.safetensors, final\.ckpt"),
        ("text.ckpt", r"text\.ckpt: not a weights-only checkpoint"),
        ("state.ckpt", r"state\.ckpt: a checkpoint must hold a state_dict"),
        ("text.safetensors", r"text\.safetensors: "),
        ("sharded", r"sharded is a sharded checkpoint; make it one file by python -m lightning"),
        ("foreign.ckpt", r"foreign\.ckpt holds no configuration of a PretzelModule"),
    ],
)
def test_what_is_no_run_is_refused(project, config, path, expected, monkeypatch):
    monkeypatch.chdir(project)
    (project / "empty").mkdir(exist_ok=True)
    (project / "sharded").mkdir(exist_ok=True)
    (project / "sharded" / ".metadata").write_text("")
    (project / "text.ckpt").write_text("hello")
    (project / "text.safetensors").write_text("hello")
    torch.save({"weights": 1}, "state.ckpt")
    torch.save({"state_dict": {"layer": torch.zeros(1)}}, "foreign.ckpt")
    with pytest.raises(ValueError, match=expected) as refused:
        pretzel.load(path, config=config if path == "text.safetensors" else None)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "device",
    [
        "foo",
        pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device):
    with pytest.raises(UserError, match=f"device must be one .*, got '{device}'"):
        pretzel.load("nowhere", device=device)


def test_another_architecture_is_refused(run, config, tmp_path):
    wider = {"model": {"init_args": {"pretzel": {"split": {"deep": 2}}}}}
    (tmp_path / "deeper.yaml").write_text(yaml.safe_dump(wider))
    with pytest.raises(UserError, match=r"last\.ckpt: .*must be of the configured architecture"):
        pretzel.load(run, config=[*config, tmp_path / "deeper.yaml"])


class Stranger(LightningModule):
    """No model of ours."""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class_path": f"{__name__}.Stranger", "init_args": {}}, "Stranger"),
        ({"class_path": "os.system", "init_args": {"command": "touch executed"}}, "os.system"),
        ({"pretzel": {"class_path": "os.system", "init_args": {"command": "touch executed"}}},
         "os.system"),
        ({"optimizer": {"class_path": "os.system", "init_args": {"command": "touch executed"}}},
         "os.system"),
        ({"sampler": {"class_path": "subprocess.Popen", "init_args": {"args": "touch executed"}}},
         "subprocess.Popen"),
    ],
)  # fmt: skip
def test_a_strangers_checkpoint_runs_nothing(run, change, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    model = saved["model_config"]
    whole = "class_path" in change
    saved["model_config"] = change if whole else model | {"init_args": model["init_args"] | change}
    torch.save(saved, "stranger.ckpt")
    with pytest.raises(UserError, match=expected):
        PretzelModule.load_from_checkpoint("stranger.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["stranger.ckpt"]


def test_load_from_checkpoint_takes_nothing_that_it_would_not_use(run):
    path = run / "checkpoints/last.ckpt"
    for options in ({"weights_only": False}, {"hparams_file": "x"}, {"text_weight": 1.0}):
        with pytest.raises(UserError, match="load_from_checkpoint takes a path, map_location"):
            PretzelModule.load_from_checkpoint(path, **options)
    module = PretzelModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert module.device.type == "cpu"


def test_a_copied_run_needs_nothing_of_the_old_place(run, tmp_path):
    shutil.copytree(run, tmp_path / "elsewhere")
    assert same(weights(pretzel.load(tmp_path / "elsewhere")), weights(pretzel.load(run)))
