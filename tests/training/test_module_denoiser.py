"""A denoiser that trains beside the flow, and is a part of its own in files."""

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from tiny import batches, fit, perturb, tiny_module

from callbacks import EMAWeightAveraging
from pretzel.errors import UserError
from pretzel.runs.guards import check_checkpoint
from pretzel.sampling.denoisers import NoDenoiser
from pretzel.sampling.learned_denoiser import LearnedDenoiser
from pretzel.sequence.document import Document, DocumentBatch, Text

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
]


def module_with(denoiser, **settings):
    torch.manual_seed(0)
    module = tiny_module(denoiser=denoiser, **settings)
    if settings.get("weights") is None:
        perturb(module)
    return module


def learned(**settings):
    return module_with(LearnedDenoiser(width=8, num_blocks=1), **settings)


def test_a_learned_denoiser_is_trained_saved_and_exported_with_the_flow(tmp_path):
    module = learned(learning_rate_scales={"denoiser": 0.5})
    before = {name: value.clone() for name, value in module.denoiser.state_dict().items()}
    trainer = fit(module, tmp_path, 1)
    rates = {}
    for group in trainer.optimizers[0].param_groups:
        rates.update({id(p): group["lr"] for p in group["params"]})
    for name, parameter in module.denoiser.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.025), name
        assert not torch.equal(parameter, before[name]), name
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    module.export(tmp_path / "x.safetensors")
    exported = load_file(tmp_path / "x.safetensors")
    for name, value in module.denoiser.state_dict().items():
        assert torch.equal(saved[f"denoiser.{name}"], value)
        assert torch.equal(exported[f"denoiser.{name}"], value)


def test_its_loss_is_the_mean_square_error_of_the_noised_batch(tmp_path):
    module, batch = learned(), batches(1)[0]
    noise = module.pretzel.noise(len(batch.images), 0, "noise", 0, 0)
    clean = module.pretzel.latent.encode(batch.images)
    estimate = module.denoiser(clean + 0.05 * noise, 0.05, lambda x: x)
    expected = (estimate - clean).square().mean()
    actual = fit(module, tmp_path, 1).callback_metrics
    assert actual.keys() == module.metric_names()
    assert actual["train/denoise"].item() == pytest.approx(expected.item(), rel=1e-4)
    parts = actual["train/nll_flow"] + 0.5 * actual["train/nll_text"] + actual["train/denoise"]
    torch.testing.assert_close(actual["train/loss"], parts)


@pytest.mark.parametrize("clip", [{}, {"gradient_clip_val": 0.1}])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_flow_trains_as_it_would_without_one(tmp_path, clip, optimizer):
    plain, beside = (
        module_with(denoiser, optimizer=optimizer)
        for denoiser in (NoDenoiser(), LearnedDenoiser(width=8))
    )
    for module in (plain, beside):
        fit(module, tmp_path, 3, settings=clip)
    for name, value in plain.pretzel.state_dict().items():
        assert torch.equal(beside.pretzel.state_dict()[name], value), name


def test_without_noise_a_learned_denoiser_has_nothing_to_learn(tmp_path):
    module = learned(noise=0.0)
    before = {name: value.clone() for name, value in module.denoiser.state_dict().items()}
    actual = fit(module, tmp_path, 1).callback_metrics
    assert actual["train/denoise"] == 0
    for name, value in module.denoiser.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_batch_without_images_touches_it_all_the_same(tmp_path):
    class Looking(Callback):
        def on_after_backward(self, trainer, pl_module):
            gradients = [p.grad for p in pl_module.denoiser.parameters()]
            assert all(g is not None and not g.any() for g in gradients)

    text = tuple(
        Document(key=a, segments=(Text(content="what color?"), Text(content=a, role="target")))
        for a in ("red", "blue")
    )
    batch = DocumentBatch(documents=text, images=torch.zeros(0, 3, 8, 8))
    actual = fit(learned(), tmp_path, 1, [batch], {"callbacks": [Looking()]}).callback_metrics
    assert "train/denoise" not in actual


def test_its_average_is_kept_too(tmp_path):
    module = learned()
    settings = {"callbacks": [EMAWeightAveraging(decay=0.5)]}
    fit(module, tmp_path, 3, settings=settings).save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    name = "denoiser.head.weight"
    assert not torch.equal(saved["state_dict"][name], saved["current_model_state"][name])


# Another denoiser than the one in the file


@pytest.fixture
def files(tmp_path):
    """A checkpoint and exported weights, trained with a learned denoiser and without."""
    actual = {}
    for name, module in (("with", learned()), ("without", module_with(NoDenoiser()))):
        trainer = fit(module, tmp_path, 1)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        module.export(tmp_path / f"{name}.safetensors")
        actual[name] = module
    return tmp_path, actual


def same_flow(module, other):
    return all(
        torch.equal(value, other.pretzel.state_dict()[name])
        for name, value in module.pretzel.state_dict().items()
    )


def test_a_flow_trained_with_a_denoiser_is_used_without(files):
    folder, trained = files
    started = module_with(NoDenoiser(), weights=folder / "with.safetensors")
    assert same_flow(started, trained["with"])
    loaded = module_with(NoDenoiser())
    check_checkpoint(str(folder / "with.ckpt"), loaded, resumes=False)
    loaded.load_state_dict(torch.load(folder / "with.ckpt", weights_only=True)["state_dict"])
    assert same_flow(loaded, trained["with"])
    assert loaded.sample(["a red circle"], stream_key=(0,)).isfinite().all()


def test_weights_without_a_denoiser_start_a_run_that_trains_one(files):
    folder, trained = files
    started = learned(weights=folder / "without.safetensors")
    assert same_flow(started, trained["without"])
    before = started.denoiser.head.weight.clone()
    with pytest.raises(UserError, match=r"^denoiser LearnedDenoiser has no trained weights: "):
        started.sample(["a red circle"], stream_key=(0,))
    fit(started, folder, 1)
    assert not torch.equal(started.denoiser.head.weight, before)
    assert started.sample(["a red circle"], stream_key=(0,)).isfinite().all()


def test_a_checkpoint_without_a_denoiser_draws_with_none_that_must_be_trained(files):
    folder, _ = files
    module = learned()
    check_checkpoint(str(folder / "without.ckpt"), module, resumes=False)
    module.load_state_dict(torch.load(folder / "without.ckpt", weights_only=True)["state_dict"])
    with pytest.raises(UserError, match="no trained weights"):
        module.generate(["a red circle"], ["a"], seed=0)


@pytest.mark.parametrize("name", ["with", "without"])
def test_a_run_goes_on_with_the_denoiser_it_has(files, name):
    folder, _ = files
    other = module_with(NoDenoiser()) if name == "with" else learned()
    with pytest.raises(UserError, match=r"architecture, but denoiser\.\S+ is (missing|unknown)"):
        fit(other, folder, 2, ckpt_path=folder / f"{name}.ckpt")


def test_a_denoiser_of_another_width_is_refused(files):
    folder, _ = files
    with pytest.raises(UserError, match=r"denoiser\.\S+ has shape"):
        module_with(LearnedDenoiser(width=4, num_blocks=1), weights=folder / "with.safetensors")


def test_weights_are_not_read_where_there_is_no_memory_for_them(files):
    folder, trained = files
    with torch.device("meta"):
        module = module_with(NoDenoiser(), weights=folder / "with.safetensors")
    assert all(p.is_meta for p in module.pretzel.deep.parameters())
    assert not any(p.is_meta for p in trained["with"].parameters())
