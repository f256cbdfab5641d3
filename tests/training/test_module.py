"""Training with Lightning: checkpoints, resume, learning rates, mistakes."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from safetensors.torch import save_file
from tiny import (
    caption_batch,
    fit,
    images,
    joined,
    perturb,
    question_batch,
    tiny_module,
    tiny_pretzel,
)

from callbacks import Likelihood
from datamodules import Captions, EasyVQA, WebDatasetDataModule
from pretzel.errors import UserError
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.latent import Autoencoder
from pretzel.sampling.learned_denoiser import LearnedDenoiser

pytestmark = [  # these fits have nothing to validate on, and a list for a loader
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
]

QUESTION = ("what color is the shape?", "red")


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    def make():
        torch.manual_seed(0)
        return tiny_module(optimizer=torch.optim.AdamW, micro_batch_size=2)

    whole = make()
    fit(whole, tmp_path, 4)
    half = make()
    fit(half, tmp_path, 2).save_checkpoint(tmp_path / "half.ckpt")
    resumed = make()
    perturb(resumed)
    fit(resumed, tmp_path, 4, ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_checkpoint_names_frozen_weights_and_does_not_hold_them(tmp_path):
    module = tiny_module()
    before = {name: value.clone() for name, value in module.pretzel.vlm.state_dict().items()}
    fit(module, tmp_path, 2).save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert not [key for key in checkpoint["state_dict"] if ".vlm." in key]
    assert checkpoint["frozen"]["vlm"] == module.pretzel.vlm.identity
    after = module.pretzel.vlm.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    in_optimizer = {
        id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]
    }
    assert not in_optimizer & {id(p) for p in module.pretzel.vlm.parameters()}


def test_a_checkpoint_of_another_vlm_is_refused():
    module = tiny_module()
    with pytest.raises(UserError, match=r"vlm it was trained with, other:1, got tiny-vlm"):
        module.on_load_checkpoint({"frozen": {"vlm": "other:1", "latent": "pixels:8/4"}})


def test_a_checkpoint_of_another_architecture_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"must be of the configured architecture, but .* missing"):
        tiny_module(Stacked).load_state_dict(tiny_module(TextPrefix).state_dict())


@pytest.mark.parametrize("interleaving", [Stacked, TextPrefix, Unconditional])
def test_training_lowers_the_loss_on_one_batch(interleaving, tmp_path):
    torch.manual_seed(0)
    module = tiny_module(interleaving, optimizer=torch.optim.AdamW, text_weight=0.1)
    batch = joined(caption_batch("a red circle"), question_batch(QUESTION))
    noise = module.pretzel.noise(2, "test")
    losses = []
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(60):
        output = module.pretzel(batch, noise)
        loss = -output.log_prob.mean() / module.pretzel.latent.dims + output.token_nll.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_only_interleavings_with_image_to_text_answer():
    assert tiny_module(Stacked).can_answer
    assert not tiny_module(TextPrefix).can_answer
    with pytest.raises(UserError, match="interleaving must be one that answers"):
        tiny_module(TextPrefix).answer(images(1), [QUESTION[0]], ["a"])


def test_learning_rates_are_scaled_by_the_beginning_of_the_name(tmp_path):
    module = tiny_module(learning_rate_scales={"interleaving": 3.0})
    trainer = fit(module, tmp_path, 1)
    rates = {}
    for group in trainer.optimizers[0].param_groups:
        rates.update({id(p): group["lr"] for p in group["params"]})
    for name, parameter in module.pretzel.named_parameters():
        if parameter.requires_grad:
            expected = 0.15 if name.startswith("interleaving") else 0.05
            assert rates[id(parameter)] == pytest.approx(expected), name


def test_a_scale_may_be_for_parts_that_some_arms_lack(tmp_path):
    scales = {"interleaving.adapter?": 3.0}
    for interleaving, expected in ((Stacked, {0.05, 0.15}), (Unconditional, {0.05})):
        module = tiny_module(interleaving, learning_rate_scales=scales)
        groups = fit(module, tmp_path, 1).optimizers[0].param_groups
        assert {round(group["lr"], 6) for group in groups} == expected


def test_a_scale_for_nothing_is_refused():
    with pytest.raises(UserError, match="'interleavin_' must begin the name"):
        tiny_module(learning_rate_scales={"interleavin_": 3.0})


def test_latents_in_half_precision_are_those_that_are_computed_beforehand():
    model = tiny_pretzel(noise=0.0)
    model.latent = Autoencoder(patch_size=4, noise=0.0)
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        x = model.encode(pictures, model.noise(2, "x"))
    assert torch.equal(x, model.latent.encode(pictures))


def test_the_likelihood_of_an_evaluation_is_computed_once(tmp_path, monkeypatch):
    module = tiny_module()
    batches = [caption_batch("a red circle", "a shape"), caption_batch("a blue circle")]
    calls = []
    score = module.pretzel.log_prob
    monkeypatch.setattr(module.pretzel, "log_prob", lambda *of: calls.append(1) or score(*of))
    trainer = Trainer(default_root_dir=tmp_path, logger=False, callbacks=[Likelihood()],
                      enable_progress_bar=False, accelerator="cpu")  # fmt: skip
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    (values,) = trainer.validate(module, loader, verbose=False)
    assert values["val/nll_excess_bits_per_dim_n"] == 3
    assert len(calls) == 2


def test_samples_depend_on_the_key_alone():
    module = tiny_module()
    perturb(module)
    first = module.sample(["a red circle", "a shape"], stream_key=("x", 1))
    again = module.sample(["a red circle", "a shape"], stream_key=("x", 1))
    other = module.sample(["a red circle", "a shape"], stream_key=("x", 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_image_is_read_once_however_many_questions_it_gets(monkeypatch):
    module = tiny_module()
    perturb(module)
    seen = []
    encode = type(module.pretzel.latent).encode
    monkeypatch.setattr(
        type(module.pretzel.latent),
        "encode",
        lambda self, x: (seen.append(len(x)), encode(self, x))[1],
    )
    pixels = images(2)[[0, 0, 1, 0]]
    module.answer(pixels, [QUESTION[0], "is there a circle?", QUESTION[0], "a"], list("aaba"))
    assert seen == [2]


def test_more_images_than_the_documents_hold_are_refused():
    batch = joined(caption_batch("a red circle"), caption_batch("a shape"))
    one = type(batch)(documents=batch.documents[:1], images=batch.images)
    with pytest.raises(UserError, match="these documents hold 1 images, got the latents of 2"):
        tiny_pretzel()(one, torch.zeros(2, 4, 48))


def test_a_trainer_that_accumulates_batches_is_refused(tmp_path):
    scheduler = GradientAccumulationScheduler({1: 4})
    for settings, number in (({"accumulate_grad_batches": 2}, 2), ({"callbacks": [scheduler]}, 4)):
        with pytest.raises(UserError, match=r"^trainer\.accumulate_grad_batches must") as caught:
            fit(tiny_module(), tmp_path, 1, settings=settings)
        assert f"be 1 for PretzelModule, got {number}: " in str(caught.value)
        assert "and model.init_args.micro_batch_size to those that fit" in str(caught.value)
    with pytest.raises(UserError, match="micro_batch_size must be positive, got 0"):
        tiny_module(micro_batch_size=0)


# Starting from exported weights


def test_data_of_another_size_are_refused_before_anything_is_read(tmp_path):
    data = WebDatasetDataModule(
        EasyVQA(), Captions(), image_size=16, batch_size=2, steps_per_epoch=1
    )
    message = "image_size of the data must be that of the latent space Pixels, 8 px, got 16 px"
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    with pytest.raises(UserError, match=message):
        trainer.fit(tiny_module(), datamodule=data)


def test_exported_weights_start_the_same_module(tmp_path):
    first = tiny_module(denoiser=LearnedDenoiser(width=8, num_blocks=1))
    perturb(first)
    first.export(tmp_path / "x.safetensors")
    from_file = tiny_module(
        denoiser=LearnedDenoiser(width=8, num_blocks=1), weights=tmp_path / "x.safetensors"
    )
    assert from_file.state_dict().keys() == first.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(from_file.state_dict()[name], value), name
    # copies: what happens to the file afterwards is nothing to the module
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert torch.equal(from_file.denoiser.head.weight, first.denoiser.head.weight)


def test_a_resumed_checkpoint_overrules_the_weights(tmp_path):
    tiny_module().export(tmp_path / "start.safetensors")
    trained = tiny_module()
    perturb(trained)
    fit(trained, tmp_path, 1).save_checkpoint(tmp_path / "x.ckpt")
    resumed = tiny_module(weights=tmp_path / "start.safetensors")
    fit(resumed, tmp_path, 1, ckpt_path=tmp_path / "x.ckpt")
    for name, value in trained.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_weights_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match=r"weights must name a file .*x\.safetensors: no such file"):
        tiny_module(weights=path)
    path.write_bytes(b"not tensors")
    with pytest.raises(UserError, match=r"weights must name a file that export wrote, got .*x\."):
        tiny_module(weights=path)
    tiny_module(Stacked).export(path)
    with pytest.raises(
        UserError, match=r"weights .*x\.safetensors must be of the configured architecture, but "
        r"pretzel\.interleaving\.\S+ is unknown \(and \d+ more differences\)$"
    ):  # fmt: skip
        tiny_module(TextPrefix, weights=path)
    module = tiny_module()
    save_file(dict(module.state_dict()), path, {"vlm": "other:1", "latent": "pixels:8/4"})
    with pytest.raises(UserError, match=r"x\.safetensors must be used with the vlm .* other:1, "):
        tiny_module(weights=path)
    # of tensors without a word about frozen parts, only names and shapes can be checked
    save_file(dict(module.state_dict()), path)
    tiny_module(weights=path)


# Drawing one by one


def test_a_drawn_image_depends_on_its_key_and_the_seed_alone():
    module = tiny_module()
    perturb(module)
    prompts, keys = ["a red circle", "a shape", "a red circle"], ["a", "b", "c"]
    together = module.generate(prompts, keys, seed=3)
    alone = torch.cat(
        [module.generate([p], [k], seed=3) for p, k in zip(prompts, keys, strict=True)]
    )
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)
    assert not torch.allclose(module.generate(prompts, keys, seed=4), together, atol=1e-2)
