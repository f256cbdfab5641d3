"""Training: what moves, what is saved, how losses are averaged."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.sampling.denoisers import NoDenoiser
from pretzel.sampling.guidance import NoGuidance
from pretzel.sampling.samplers import Sequential
from pretzel.sequence.document import Document, DocumentBatch, Text
from pretzel.testing import perturb, tiny_pretzel
from pretzel.testing.tiny_model import batch
from pretzel.training.module import PretzelModule
from pretzel.training.schedule import Constant, WarmupCosine

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:You defined a `validation_step`",
    "ignore:.*isinstance.treespec, LeafSpec.",
    "ignore:.*`log.*batch_size",
)
DIMS = 48


def module(interleaving=Stacked, *, lr=0.1, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_pretzel(interleaving)
    perturb(model)
    settings = {
        "text_weight": 0.5,
        "optimizer": partial(torch.optim.SGD, lr=lr, weight_decay=0.1),
        "schedule": Constant(),
        "guidance": NoGuidance(),
        "denoiser": NoDenoiser(),
        "sampler": Sequential(),
    }
    return PretzelModule(model, **{**settings, **options})


def fit(trained, given, steps=1):
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(trained, DataLoader([given] * steps, batch_size=None))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def given(rows=slice(None)):
    whole = batch(tiny_pretzel(Stacked), torch.float32)
    return replace(whole, documents=whole.documents[rows], images=whole.images[rows])


def text_batch():
    answer = Text(content="red", role="target")
    document = Document(key="t", segments=(Text(content="what color?"), answer))
    return DocumentBatch(documents=(document,), images=torch.zeros(0, 3, 4, 4))


@pytest.mark.parametrize("interleaving", [Stacked, TextPrefix, Unconditional])
def test_a_step_moves_every_trainable_weight_and_no_frozen_one(interleaving):
    trained = module(interleaving)
    before = {name: p.clone() for name, p in trained.named_parameters()}
    frozen = {id(p) for part in trained.pretzel.frozen.values() for p in part.parameters()}
    fit(trained, given())
    for name, parameter in trained.named_parameters():
        same = torch.equal(parameter, before[name])
        assert same == (id(parameter) in frozen), name


def test_frozen_weights_are_in_no_optimizer_and_no_state_dict():
    trained = module()
    fit(trained, given())
    optimized = {id(p) for g in trained.trainer.optimizers[0].param_groups for p in g["params"]}
    trainable = {id(p) for p in trained.parameters() if p.requires_grad}
    assert optimized == trainable
    assert not any(id(p) in optimized for p in trained.pretzel.vlm.parameters())
    state = trained.state_dict()
    assert state
    assert not [key for key in state if ".vlm." in key or ".latent." in key]


def test_a_state_dict_restores_the_model_around_the_same_frozen_parts():
    trained, fresh = module(), module()
    perturb(fresh.pretzel, seed=3)
    fresh.load_state_dict(trained.state_dict())
    noise = torch.zeros(4, 4, 12)
    first, second = trained.pretzel(given(), noise), fresh.pretzel(given(), noise)
    assert torch.equal(first.log_prob, second.log_prob)
    assert torch.equal(first.token_nll, second.token_nll)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("pretzel.deep.head.bias"), "pretzel.deep.head.bias is missing"),
        (lambda s: s.update(more=torch.zeros(1)), "more is unknown"),
        (lambda s: s.update({"pretzel.deep.head.bias": torch.zeros(3)}), r"shape \(3,\) instead"),
    ],
)
def test_other_architectures_are_refused(change, message):
    state = dict(module().state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        module().load_state_dict(state)


def test_checkpoints_name_the_frozen_parts_and_refuse_others():
    trained = module()
    checkpoint = {}
    trained.on_save_checkpoint(checkpoint)
    trained.on_load_checkpoint(checkpoint)
    assert checkpoint["frozen"]["vlm"].startswith("tiny-vlm:")
    checkpoint["frozen"]["latent"] = "pixels:64/4"
    with pytest.raises(ValueError, match="with the latent it was trained with, pixels:64/4"):
        trained.on_load_checkpoint(checkpoint)


def test_losses_average_over_images_and_over_tokens():
    trained, data = module(lr=0.0), given()
    with torch.no_grad():
        noise = trained.pretzel.noise(4, 0, "noise", 0, 0)
        output = trained.pretzel(data, noise)
        # z^2/2 + log sigma - log|det J_f|/dims, without the constant of the Gaussian
        flow = (-output.log_prob / DIMS - 0.5 * math.log(2 * math.pi)).sum() / 4
        text = output.token_nll.sum() / 6
        penalty = output.u.square().mean()
    actual = fit(trained, data)
    assert actual["train/nll_flow"] == pytest.approx(float(flow), rel=1e-5)
    assert actual["train/nll_text"] == pytest.approx(float(text), rel=1e-5)
    assert actual["train/loss"] == pytest.approx(float(flow + 0.5 * text), rel=1e-5)
    penalised = fit(module(lr=0.0, latent_norm_penalty=0.3), data)
    assert penalised["train/loss"] == pytest.approx(
        float(flow + 0.5 * text + 0.3 * penalty), rel=1e-5
    )


def test_a_token_counts_the_same_in_a_long_and_a_short_row():
    # Averaging over rows first would weigh the tokens of the caption (1) and questions (4) apart
    data = given(slice(0, 4, 3))
    trained = module(lr=0.0)
    with torch.no_grad():
        nll = trained.pretzel(data, torch.zeros(2, 4, 12)).token_nll
    actual = fit(trained, data)["train/nll_text"]
    assert len(nll) == 5
    noise = trained.pretzel.noise(2, 0, "noise", 0, 0)
    with torch.no_grad():
        nll = trained.pretzel(data, noise).token_nll
    assert actual == pytest.approx(float(nll.mean()), rel=1e-5)
    assert actual != pytest.approx(float((nll[0] + nll[1:].mean()) / 2), rel=1e-3)


@pytest.mark.parametrize(
    ("data", "absent"),
    [(given(slice(2, 3)), "train/nll_text"), (text_batch(), "train/nll_flow")],
    ids=["without targets", "without images"],
)
def test_a_missing_kind_adds_nothing_and_every_parameter_takes_part(data, absent):
    trained = module(lr=0.0)
    actual = fit(trained, data)
    assert absent not in actual
    weight = {"train/nll_flow": 1.0, "train/nll_text": 0.5}
    (present,) = set(weight) - {absent}
    assert actual["train/loss"] == pytest.approx(weight[present] * actual[present], rel=1e-6)
    for name, parameter in trained.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_learning_rates_scale_by_name():
    trained = module(learning_rate_scales={"interleaving": 2.0, "interleaving.adapter": 0.0})
    adapter = trained.pretzel.interleaving.adapter.last.weight.clone()
    fit(trained, given())
    assert torch.equal(trained.pretzel.interleaving.adapter.last.weight, adapter)
    rates = {group["lr"] for group in trained.trainer.optimizers[0].param_groups}
    assert rates == {0.1, 0.2, 0.0}
    with pytest.raises(ValueError, match="'vlm' must begin the name of a trainable parameter"):
        module(learning_rate_scales={"vlm": 2.0})


@pytest.mark.parametrize("name", ["text_weight", "latent_norm_penalty"])
def test_weights_must_not_be_negative(name):
    with pytest.raises(ValueError, match=f"{name} must be 0 or positive, got -1"):
        module(**{name: -1.0})


def test_noise_of_evaluations_belongs_to_the_sample():
    trained, data = module(), given()
    reordered = replace(data, documents=data.documents[::-1], images=data.images.flip(0))
    with torch.no_grad():
        first, second = trained.log_prob(data).log_prob, trained.log_prob(reordered).log_prob
    torch.testing.assert_close(first, second.flip(0), rtol=1e-5, atol=1e-4)


def test_answers_belong_to_their_questions_whatever_the_order():
    trained, data = module(), given()
    rows = torch.tensor([3, 0, 3])
    questions, keys = ["what color is it?", "why?", "a shape?"], ["q", "c", "q"]
    actual = trained.answer(data.images[rows], questions, keys)
    turned = trained.answer(data.images[rows.flip(0)], questions[::-1], keys[::-1])
    assert actual == turned[::-1]
    assert trained.can_answer
    assert not module(TextPrefix).can_answer


def test_samples_belong_to_their_stream():
    trained = module()
    first = trained.sample(["a red circle"], stream_key=("grid", 1))
    assert torch.equal(first, trained.sample(["a red circle"], stream_key=("grid", 1)))
    assert not torch.equal(first, trained.sample(["a red circle"], stream_key=("grid", 2)))
    assert first.shape == (1, 3, 4, 4)


def test_the_schedule_runs_over_the_whole_run():
    trained = module(lr=1.0, schedule=WarmupCosine(warmup_steps=2, final_factor=0.1))
    fit(trained, given(), steps=4)
    # the scheduler has been stepped behind the last step
    assert trained.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1)
    factors = [WarmupCosine(2, 0.1).factor(step, 4) for step in range(5)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])


def test_exported_weights_hold_no_frozen_part(tmp_path):
    from safetensors import safe_open

    trained = module()
    trained.export(tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(trained.state_dict())
        expected = {**trained.frozen_identities(), "sampler": "{}", "untrained": "[]"}
        assert file.metadata().items() > expected.items()
