"""Stages: what trains, which losses count, where they start from; and their YAML, chained."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from tiny import caption_batch, fit, joined, perturb, question_batch, tiny_module

from callbacks.ema import EMAWeightAveraging
from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.interleave import Stacked, TextPrefix, Tiled, Unconditional
from pretzel.tarflow import TarFlow
from pretzel.training.module import PretzelModule
from pretzel.training.starting_weights import read_weights

pytestmark = [  # these fits have nothing to validate on, and a list for a loader
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
]

ROOT = Path(__file__).parents[2]
BASE = ROOT / "ablations" / "base" / "easy_vqa.yaml"
PROCESSES = ROOT / "ablations" / "base" / "two_processes.yaml"
STAGES = ROOT / "ablations" / "stages"
SHRINK = ROOT / "tests" / "configs" / "shrink.yaml"

QUESTION = ("what color is the shape?", "red")
CAPTIONS = [caption_batch("a red circle", "a shape")]
QUESTIONS = [question_batch(QUESTION, ("a circle?", "yes"))]
BOTH = [joined(*CAPTIONS, *QUESTIONS)]

DATA = {"s1": CAPTIONS, "s2": QUESTIONS, "s3": BOTH}


def settings_of(name):
    given = yaml.safe_load((STAGES / f"{name}.yaml").read_text())["model"]["init_args"]
    return {key: given[key] for key in ("trains", "flow_weight", "text_weight")}


SETTINGS = {name: settings_of(name) for name in DATA}


def stage(name, *, optimizer=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    return tiny_module(optimizer=optimizer, **{**SETTINGS[name], **options})


def copied(tensors):
    return {name: value.detach().clone() for name, value in tensors}


def test_the_stages_train_what_they_say_and_leave_the_rest_alone(tmp_path):
    weights, frozen = None, None
    moved = {}
    for name in ("s1", "s2", "s3"):
        module = stage(name, weights=weights)
        before = copied(module.named_parameters())
        frozen = frozen or copied(module.pretzel.vlm.named_parameters())
        trainer = fit(module, tmp_path, 4, DATA[name])
        weights = tmp_path / f"{name}.ckpt"
        trainer.save_checkpoint(weights)
        moved[name] = {
            n.removeprefix("pretzel.") for n, p in module.named_parameters()
            if not torch.equal(p, before[n])
        }  # fmt: skip
        state = torch.load(weights, weights_only=True)["state_dict"]
        assert set(state) == set(module.state_dict()), "what does not train is saved all the same"
        assert state.keys() >= {f"pretzel.{n}" for n in moved[name]}
        skips = [module.pretzel.interleaving.vlm_skip, module.pretzel.interleaving.deep_skip]
        assert any(p.any() for skip in skips for p in skip.parameters()) == (name == "s3")
        for n, p in module.pretzel.vlm.named_parameters():
            assert torch.equal(p, frozen[n]), n
    tops = {name: {n.split(".")[0] for n in names} for name, names in moved.items()}
    assert tops["s1"] == {"shallow", "deep", "interleaving"}
    assert {n for n in moved["s1"] if n.startswith("interleaving")} == {
        "interleaving.text_input.weight", "interleaving.text_input.bias",
    }  # fmt: skip
    assert moved["s2"] == {"interleaving.adapter.last.weight", "interleaving.adapter.last.bias"}
    trainable = {n for n, p in stage("s3").pretzel.named_parameters() if p.requires_grad}
    assert moved["s3"] == trainable


def test_what_does_not_train_is_in_no_optimizer(tmp_path):
    module = stage("s2", learning_rate_scales={"interleaving": 2.0, "deep": 3.0})
    optimizer = fit(module, tmp_path, 1, QUESTIONS).optimizers[0]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in module.pretzel.interleaving.adapter.parameters()}
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("weights", "silent"),
    [
        ({"text_weight": 0.0}, "interleaving.deep_skip"),
        ({"flow_weight": 0.0, "text_weight": 1.0}, "deep.head"),
    ],
    ids=["no text", "no flow"],
)
def test_a_loss_that_is_off_has_no_gradient_and_every_parameter_takes_part(
    weights, silent, tmp_path
):
    module = tiny_module(**weights)
    perturb(module)
    fit(module, tmp_path, 1, BOTH)
    largest = {}
    for name, parameter in module.pretzel.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            largest[name] = float(parameter.grad.abs().max())
    assert not any(value for name, value in largest.items() if name.startswith(silent))
    assert sum(value > 0 for value in largest.values()) > len(largest) / 2


WORDS = {"stacked": Stacked, "tiled": partial(Tiled, word="VVFVV")}


def deep_runs(module, tmp_path):
    """How often the deep stream runs in one step, and what the trained weights are after it."""
    runs = []
    for layer in module.pretzel.deep.conditioner.layers:
        layer.register_forward_hook(lambda *_: runs.append(1))
    fit(module, tmp_path, 1, QUESTIONS)
    return len(runs), copied(module.pretzel.interleaving.named_parameters())


@pytest.mark.parametrize("interleaving", WORDS.values(), ids=WORDS)
def test_the_adapter_is_trained_without_the_deep_stream_while_no_text_reads_it(
    interleaving, tmp_path, monkeypatch
):
    first = stage("s1", interleaving=interleaving, text_states=None)
    fit(first, tmp_path, 2, CAPTIONS)
    first.export(tmp_path / "s1.safetensors")
    s2 = partial(stage, "s2", interleaving=interleaving)
    count, alone = deep_runs(s2(weights=tmp_path / "s1.safetensors"), tmp_path)
    assert not count
    monkeypatch.setattr(PretzelModule, "_flow_is_shut_out", lambda _: False)
    count, with_flow = deep_runs(s2(weights=tmp_path / "s1.safetensors"), tmp_path)
    assert count
    assert all(torch.equal(value, with_flow[name]) for name, value in alone.items())


def test_text_that_reads_the_deep_stream_is_trained_with_it(tmp_path):
    third = stage("s3")
    fit(third, tmp_path, 2, BOTH)
    third.export(tmp_path / "s3.safetensors")
    assert deep_runs(stage("s2", weights=tmp_path / "s3.safetensors"), tmp_path)[0], "were trained"
    assert deep_runs(stage("s2", trains=["interleaving"]), tmp_path)[0], "will be trained"
    assert not deep_runs(stage("s2"), tmp_path)[0]


def test_losses_are_weighed(tmp_path):
    actual = {}
    for weights in ((1.0, 0.5), (2.0, 0.0), (0.0, 3.0)):
        module = tiny_module(flow_weight=weights[0], text_weight=weights[1])
        perturb(module)
        metrics = fit(module, tmp_path, 1, BOTH).callback_metrics
        actual[weights] = float(metrics["train/loss"])
        parts = float(metrics["train/nll_flow"]), float(metrics["train/nll_text"])
        assert actual[weights] == pytest.approx(
            sum(w * part for w, part in zip(weights, parts, strict=True)), rel=1e-5
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trains": ["interleaving.adaptor"]}, r"trains: 'interleaving.adaptor' must begin the "
         r"name of a trainable parameter, which start with \['deep', 'interleaving', 'shallow'\]"),
        ({"trains": ["vlm"]}, "trains: 'vlm' must begin"),
        ({"trains": ["start?"]}, r"trains must leave something to train, got \['start\?'\]"),
        ({"trains": []}, "trains must leave something to train"),
        ({"flow_weight": -1.0}, "flow_weight must be 0 or positive, got -1.0"),
        ({"flow_weight": 0.0, "text_weight": 0.0}, "flow_weight must be positive, got 0: text_we"),
    ],
)  # fmt: skip
def test_mistakes_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny_module(**options)


@pytest.mark.parametrize("interleaving", [TextPrefix, Unconditional])
def test_an_interleaving_without_image_to_text_has_no_second_stage(interleaving):
    with pytest.raises(UserError, match=f"{interleaving.__name__} has no image-to-text, so this "):
        tiny_module(interleaving, **SETTINGS["s2"])
    module = tiny_module(interleaving, **SETTINGS["s1"])  # the first is for all
    assert any(p.requires_grad for p in module.pretzel.deep.parameters())
    assert not isinstance(module.pretzel, TarFlow)


# Where a stage starts from


def test_a_stage_starts_from_the_averaged_weights_of_a_checkpoint(tmp_path):
    first = stage("s1")
    averaging = {"callbacks": [EMAWeightAveraging(decay=0.9)]}
    fit(first, tmp_path, 3, CAPTIONS, averaging).save_checkpoint(tmp_path / "s1.ckpt")
    saved = torch.load(tmp_path / "s1.ckpt", weights_only=True)
    assert not torch.equal(
        saved["state_dict"]["pretzel.deep.head.bias"],
        saved["current_model_state"]["pretzel.deep.head.bias"],
    )
    second = stage("s2", weights=tmp_path / "s1.ckpt")
    for name, value in second.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name]), name
    trainer = fit(second, tmp_path, 1, QUESTIONS)
    assert trainer.global_step == 1, "neither steps nor optimizer are carried over"
    # of a stage that is only planned, names and shapes are read
    shapes = read_weights(tmp_path / "s1.ckpt", shapes_only=True)
    assert all(value.is_meta for value in shapes.state.values())
    assert shapes.frozen["vlm"] == second.pretzel.vlm.identity


def test_weights_that_are_no_checkpoint_of_this_model_are_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {}, "code": Path}, path)
    with pytest.raises(UserError, match=r"weights .*x\.ckpt: not a weights-only checkpoint"):
        tiny_module(weights=path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(UserError, match="must hold a state_dict, this one does not"):
        tiny_module(weights=path)
    odd: tuple[tuple[str, object], ...] = (
        ("frozen", ["vlm"]), ("frozen", {"vlm": 1}), ("sampler", None), ("untrained", [1]),
    )  # fmt: skip
    for name, value in odd:
        torch.save({"state_dict": {}, name: value}, path)
        with pytest.raises(UserError, match=rf"x\.ckpt: {name} is not what a run saves, got"):
            read_weights(path)
    missing = r"or the checkpoint of the stage before, got .*y\.ckpt: no such file"
    with pytest.raises(UserError, match=missing):
        tiny_module(weights=tmp_path / "y.ckpt")
    with pytest.raises(UserError, match="must name one file, got the folder"):
        tiny_module(weights=tmp_path)
    module = tiny_module(TextPrefix)
    torch.save({"state_dict": module.state_dict()}, path)
    with pytest.raises(UserError, match=r"x\.ckpt must be of the configured architecture"):
        tiny_module(Stacked, weights=path)
    torch.save({"state_dict": tiny_module().state_dict(), "frozen": {"vlm": "other:1"}}, path)
    with pytest.raises(UserError, match=r"must be used with the vlm .* other:1, got tiny-vlm"):
        tiny_module(weights=path)


# The files, by the command line


def shrunk(name, folder):
    """Write the shrinking overlay: all callbacks stay, with less to do."""
    small = yaml.safe_load(SHRINK.read_text())
    callbacks = yaml.safe_load((STAGES / f"{name}.yaml").read_text())["trainer"]["callbacks"]
    sizes = {
        "ConversationAccuracy": {"num_conversations": 2},
        "Generation": {"num_images": 4, "batch_size": 4},
        "OwnImages": {"num_images": 2},
        "SampleGrid": {"num_images": 2, "columns": 2},
        "SkipAnalysis": {"num_samples": 4},
        "TextDrift": {"num_samples": 4},
        "VQAAccuracy": {
            "num_questions": 8,
            "num_validation_questions": 8,
            "blind_baseline": False,  # reads all of the training questions
        },
    }
    for callback in callbacks:
        arguments = sizes.get(callback["class_path"].rpartition(".")[2], {})
        callback.setdefault("init_args", {}).update(arguments)
    small["trainer"]["callbacks"] = callbacks
    small["trainer"]["limit_val_batches"] = int(name == "s3")  # which has all that is measured
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    return folder / "small.yaml"


def run(command, *files):
    return main([*command, *[word for file in files for word in ("-c", str(file))]])


@pytest.mark.timeout(900)  # seven fits and a test
def test_the_files_chain_by_checkpoint_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = {}

    def train(name, *over, base=(BASE, PROCESSES)):
        files = [*base, STAGES / f"{name}.yaml", *over, shrunk(name, tmp_path)]
        assert run(["fit"], *files) == 0
        checkpoint = tmp_path / "runs" / "stages" / name / "checkpoints" / "last.ckpt"
        saved = torch.load(checkpoint, weights_only=True)
        states[name] = saved["state_dict"]
        if name == "s3":
            assert run(["test", "--ckpt_path", str(checkpoint)], *files) == 0
        return saved["frozen"]["vlm"]

    # Two processes in the last stage alone: another one imports everything, for ten seconds
    shipped = {train("s1", base=(BASE,)), train("s2", base=(BASE,)), train("s3")}
    adapter = "pretzel.interleaving.adapter."
    for name, value in states["s2"].items():
        assert torch.equal(value, states["s1"][name]) != name.startswith(adapter), name
    for skip in ("vlm_skip", "deep_skip"):
        key = f"pretzel.interleaving.{skip}.linear.weight"
        assert not states["s2"][key].any()
        assert states["s3"][key].any()
    kept = list((tmp_path / "runs" / "text_states").glob("*/*.safetensors"))
    assert len(kept) == 1

    # For conversations, with a vision-language model of their own
    assert (
        run(["fit"], STAGES / "vlm.yaml", STAGES / "vlm_turns.yaml", shrunk("vlm", tmp_path)) == 0
    )
    base = (BASE, BASE.with_name("turns.yaml"))
    own = {train("s1", base=base), train("s2", base=base)}
    own.add(train("s3", STAGES / "conversations.yaml", base=base))
    assert len(shipped) == len(own) == 1
    assert shipped != own
    assert len(list((tmp_path / "runs" / "text_states").glob("*/*.safetensors"))) == 2
