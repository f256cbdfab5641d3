"""Images are generated once per evaluation, in order, at fixed noise, and measured honestly."""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image as PILImage
from torch import Tensor
from world import KnownData, Recaller, evaluate, known_samples, make_trainer, names_at_test

from callbacks import (
    FID,
    KID,
    EMAWeightAveraging,
    Generation,
    GenerationMetric,
    JudgeFeatures,
    ModuleFeatures,
    PooledPixels,
    ReferenceMetric,
    ShapeAccuracy,
    TruthMetric,
)
from callbacks.laws import metrics as metric_laws
from pretzel.errors import UserError
from pretzel.testing.law_case import Case
from pretzel.testing.suite import laws_in


class Witness(ReferenceMetric):
    """Remembers what it was shown."""

    def __init__(self, refuse: str = "never") -> None:
        self.refuse = refuse
        self.images: list[Tensor] = []
        self.prompts: list[str] = []
        self.real: list[Tensor] = []
        self.calls: list[str] = []

    def prepare(self, device: torch.device) -> None:
        self.calls.append("prepare")

    def describe(self) -> str:
        return "a witness"

    def accepts(self, prompt: str) -> bool:
        return prompt != self.refuse

    def reset(self) -> None:
        self.calls.append("reset")
        self.images, self.prompts = [], []

    def reset_real(self) -> None:
        self.calls.append("reset_real")
        self.real = []

    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        self.images += list(images)
        self.prompts += prompts

    def update_real(self, images: Tensor) -> None:
        self.real += list(images)

    def compute(self) -> dict[str, float]:
        return {"witnessed": float(len(self.images))}


def test_real_images_as_generated_ones_are_right_and_noise_is_not(tmp_path: Path) -> None:
    def metrics() -> list[GenerationMetric]:
        features = JudgeFeatures()
        return [ShapeAccuracy(), FID(features), KID(features, subsets=5, subset_size=24)]

    generation = Generation(metrics(), num_images=24, batch_size=7)
    right = evaluate(tmp_path, Recaller(), [generation])
    wrong = evaluate(tmp_path, Recaller(noise=True), [Generation(metrics(), num_images=24)])
    assert right.keys() == names_at_test(generation)
    assert right["right"] == right["one_shape"] == right["right_and_one_shape"] == 1
    assert wrong["right"] < 0.3
    assert wrong["one_shape"] == 0
    # the 25th real image, whose caption is partial, is a reference but not a prompt
    assert (right["shape_n"], right["fid_judge_n"], right["fid_judge_n_real"]) == (24, 24, 25)
    assert wrong["fid_judge"] > 20 * right["fid_judge"]
    assert wrong["kid_judge"] > 0 > right["kid_judge"] - right["kid_judge_std"]
    assert "fid" not in right
    assert right["seconds_per_image"] > 0


def test_prompts_are_accepted_captions_in_order_repeated(tmp_path: Path) -> None:
    captions = [s.caption for s in known_samples()]
    witness, refused = Witness(refuse="a red triangle"), "a red triangle"
    generation = Generation([witness], num_images=30, batch_size=8)
    assert generation.metric_names() is None  # the witness does not say its own
    evaluate(tmp_path, Recaller(), [generation])
    expected = [c for c in captions if c != refused]
    assert witness.prompts == (expected + expected)[:30]
    truth = {s.caption: s.image for s in known_samples()}
    for image, prompt in zip(witness.images, witness.prompts, strict=True):
        torch.testing.assert_close(image, truth[prompt], atol=1e-6, rtol=0)


def test_given_prompts_need_no_captions(tmp_path: Path) -> None:
    module = Recaller()
    generation = Generation([ShapeAccuracy()], num_images=1, prompts=["a teal circle"])
    assert evaluate(tmp_path, module, [generation])["right"] == 1
    assert module.keys == [("generation", 0)]


class Truths(TruthMetric):
    """Remembers the ground truth of images, of all colours but one."""

    def prepare(self, device: torch.device) -> None:
        self.reset()

    def describe(self) -> str:
        return "truths"

    def example(self) -> tuple[str, Mapping[str, str]]:
        return "a red circle", {"colour": "red", "shape": "circle"}

    def accepts_truth(self, truth: Mapping[str, str]) -> bool:
        return truth.get("colour", "teal") != "teal"

    def reset(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def update_with_truth(
        self, images: Tensor, prompts: Sequence[str], truths: Sequence[Mapping[str, str]]
    ) -> None:
        rows = zip(prompts, truths, strict=True)
        self.seen += [(prompt, f"a {one['colour']} {one['shape']}") for prompt, one in rows]

    def compute(self) -> dict[str, float]:
        agree = sum(a == b for a, b in self.seen)
        return {"agree": float(agree), "truth_n": float(len(self.seen))}


def test_a_metric_of_ground_truth_has_that_of_each_prompts_sample(tmp_path: Path) -> None:
    metric = Truths()
    values = evaluate(tmp_path, Recaller(), [Generation([metric], num_images=50, batch_size=8)])
    # 24 with a truth, three of them teal; the prompts begin anew behind the last
    assert (values["agree"], values["truth_n"], len(set(metric.seen))) == (50, 50, 21)
    given = ["a blue circle", "a red triangle", "a blue circle"]
    evaluate(tmp_path, Recaller(), [Generation([metric], num_images=3, prompts=given)])
    assert metric.seen == [(text, text) for text in given]
    for unknown in ("a teal circle", "a red shape"):
        generation = Generation([metric], num_images=1, prompts=[unknown])
        message = f"Truths needs the ground truth of a sample .* of '{unknown}' the evaluated"
        with pytest.raises(UserError, match=message):
            evaluate(tmp_path, Recaller(), [generation])
    with pytest.raises(UserError, match="call update_with_truth"):
        metric.update(torch.zeros(1, 3, 4, 4), ["a red circle"])


def test_the_laws_judge_a_metric_of_ground_truth_by_its_example() -> None:
    for law in laws_in(metric_laws):
        law.function(Case(factory=Truths, perturbed=False))


def test_single_images_are_kept_with_scores_prompts_and_pictures(tmp_path: Path) -> None:
    generation = Generation([ShapeAccuracy(), Witness()], num_images=6, batch_size=4)
    values = evaluate(tmp_path, Recaller(noise=True), [generation])
    kept = generation.sample_results
    assert [one["item"] for one in kept] == [
        f"{i:05d}: {one['texts']['prompt']}" for i, one in enumerate(kept)
    ]
    for name in ("right", "one_shape", "right_and_one_shape"):
        assert sum(one["values"][f"test/{name}"] for one in kept) / 6 == pytest.approx(values[name])
    with PILImage.open(io.BytesIO(base64.b64decode(kept[5]["picture"]))) as picture:
        assert (picture.format, picture.size) == ("PNG", (32, 32))
    without = Generation([Witness()], num_images=6)
    evaluate(tmp_path, Recaller(), [without])
    assert not without.sample_results


def test_noise_is_the_same_at_every_evaluation(tmp_path: Path) -> None:
    witness, module = Witness(), Recaller(noise=True)
    generation = Generation([witness], num_images=10, batch_size=4)
    trainer = make_trainer(tmp_path, [generation])
    actual, digests = [], []
    for _ in range(2):
        trainer.test(module, datamodule=KnownData(), verbose=False)
        actual.append(torch.stack(witness.images))
        digests.append(generation.sample_digest)
    assert torch.equal(*actual)
    assert digests[0] == digests[1]
    assert not torch.equal(actual[0][:4], actual[0][4:8])
    assert module.keys == [("generation", i) for i in (0, 1, 2)] * 2
    assert module.modes == {False}


def test_generated_images_are_seen_as_eight_bit_pictures(tmp_path: Path) -> None:
    witness = Witness()
    evaluate(tmp_path, Recaller(noise=True), [Generation([witness], num_images=4)])
    levels = (torch.stack(witness.images) + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_every_n_validations_over_a_fit_and_its_resume(tmp_path: Path) -> None:
    def fit(epochs: int, checkpoint: Path | None) -> Witness:
        witness = Witness()
        generation = Generation([witness], num_images=2, every_n_validations=2)
        trainer = make_trainer(
            tmp_path, [generation], max_epochs=epochs, limit_val_batches=1, num_sanity_val_steps=1
        )
        trainer.fit(Recaller(), datamodule=KnownData(), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        return witness

    first = fit(3, None)
    assert first.calls == ["prepare", "reset_real", "reset"]
    assert len(first.real) == 25
    # the fourth validation is the next one due
    assert fit(4, tmp_path / "end.ckpt").calls == ["prepare", "reset_real", "reset"]


def test_distances_repeat_over_the_validations_of_a_fit(tmp_path: Path) -> None:
    class Keep(Callback):
        def __init__(self) -> None:
            self.values: list[dict[str, float]] = []

        def on_validation_end(self, trainer: Trainer, pl_module: Recaller) -> None:
            actual = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.values.append({n: v for n, v in actual.items() if "id_" in n})

    keep, pixels = Keep(), torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten())
    metrics = [FID(ModuleFeatures(pixels, "pixels")), KID(ModuleFeatures(pixels, "pixels"), 3, 20)]
    generation = Generation(metrics, num_images=22)
    # Lightning validates under inference mode and trains outside it; states must survive both.
    trainer = make_trainer(tmp_path, [generation, keep], max_epochs=2, limit_val_batches=1)
    trainer.fit(Recaller(noise=True), datamodule=KnownData())
    assert len(keep.values) == 2
    assert keep.values[0] == keep.values[1]
    assert set(keep.values[0]) >= {"val/fid_pixels", "val/kid_pixels", "val/kid_pixels_n_real"}


def test_real_images_are_read_once(tmp_path: Path) -> None:
    witness = Witness()
    trainer = make_trainer(tmp_path, [Generation([witness], num_images=2)])
    for _ in range(2):
        trainer.validate(Recaller(), datamodule=KnownData(), verbose=False)
    assert witness.calls.count("reset_real") == 1
    assert len(witness.real) == 25


def test_what_was_measured_is_written_to_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evaluate(tmp_path, Recaller(), [Generation([ShapeAccuracy()], num_images=2)], board=True)
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent)).Reload()
    assert "generation/metrics/text_summary" in events.Tags()["tensors"]
    assert events.Scalars("test/right")[0].value == 1


class Spoiled(Recaller):
    """Its images are spoiled by a function."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.spoil = spoil

    def sample(self, prompts: list[str], *, stream_key: tuple[int | str, ...]) -> Tensor:
        return self.spoil(super().sample(prompts, stream_key=stream_key))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda images: images.index_fill(0, torch.tensor([1]), torch.nan),
            "at step 0 1 of 5 generated images are not finite (NaN or infinity): fid_pixels2, "
            "right cannot be measured",
        ),
        (
            lambda images: images.mean((2, 3), keepdim=True).mean(1, True).expand_as(images),
            "at step 0 all 12 generated images have one value everywhere: fid_pixels2, right "
            "would be scores of nothing",
        ),
        (lambda images: known_samples()[0].image.expand_as(images), "all 12 generated images are"),
    ],
)
def test_images_without_finite_values_or_variance_get_no_score(
    tmp_path: Path, spoil: Callable[[Tensor], Tensor], message: str
) -> None:
    generation = Generation([FID(PooledPixels(2)), ShapeAccuracy()], num_images=12, batch_size=5)
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate(tmp_path, Spoiled(spoil), [generation])


def test_values_carry_what_they_were_made_of(tmp_path: Path) -> None:
    sampler = {"class_path": "pretzel.sampling.Sequential", "init_args": {"temperature": 0.9}}
    module = Recaller()
    module.sampling_record = {"sampler": sampler, "guidance": {"class_path": "my.NoGuidance"}}
    generation = Generation([FID(PooledPixels(2)), ShapeAccuracy()], num_images=24)
    evaluate(tmp_path, module, [generation, EMAWeightAveraging(0.9)])
    common = {
        "n": 24,
        "sampler": "Sequential(temperature=0.9)",
        "guidance": "NoGuidance()",
        "ema": "decay 0.9",
    }
    assert generation.facts["test/one_shape"] == common
    judged = generation.facts["test/right"]
    assert judged == common | {
        "extractor": "easy-VQA judge",
        "weights": judged["weights"],
        "resize": "area average to 32x32",
        "antialias": True,
    }
    assert generation.facts["test/fid_pixels2"] == common | {
        "extractor": "mean colours of 2x2 fields",
        "weights": "none",
        "resize": "area average to 2x2 fields",
        "antialias": True,
        "n_real": 25,
    }
    assert "test/shape_n" not in generation.facts


class Larger(Recaller):
    """Its images are not of the size of the real ones."""

    def sample(self, prompts: list[str], *, stream_key: tuple[int | str, ...]) -> Tensor:
        return torch.zeros(len(prompts), 3, 48, 48)


def test_mistakes_are_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="num_images must be at least 1, got 0"):
        Generation([Witness()], num_images=0)
    with pytest.raises(UserError, match="at least one metric"):
        Generation([])
    with pytest.raises(UserError, match="ShapeAccuracy cannot judge the prompt 'a red shape'"):
        Generation([ShapeAccuracy()], prompts=["a red circle", "a red shape"])
    with pytest.raises(UserError, match=r"\(3, 32, 32\) and \(3, 48, 48\)"):
        evaluate(tmp_path, Larger(), [Generation([Witness()])])

    bare = make_trainer(tmp_path, [Generation([Witness()])], limit_train_batches=0)
    data = KnownData(samples=known_samples()[1:2])
    with pytest.warns(UserWarning, match="Generation measures nothing: no prompts are left"):
        make_trainer(tmp_path, [Generation([ShapeAccuracy()])], max_steps=1).fit(
            Recaller(), datamodule=data
        )
    with pytest.raises(UserError, match=r"needs a datamodule with evaluation_samples\(split\)"):
        bare.test(Recaller(), data.test_dataloader(), verbose=False)
