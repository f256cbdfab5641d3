"""Contributions of the skips of the real model, against a computation by hand."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TRANSFORMER, caption_batch, images, joined, perturb, question_batch, tiny_module
from torch.utils.data import DataLoader
from world import Known, Recaller, make_trainer

from callbacks.skip_analysis import SkipAnalysis
from callbacks.text_drift import TextDrift
from pretzel.ablation.planning.metric_names import MetricNames
from pretzel.errors import UserError
from pretzel.flow import DeepStream
from pretzel.interleave import GatedSkip, RandomSkip, Stacked, Unconditional, ZeroSkip
from pretzel.interleave.skips import SkipConnection
from pretzel.interleave.tiled import Tiled
from pretzel.model import stream_inputs
from pretzel.sequence.document import DocumentBatch, question_document
from pretzel.sequence.packed_batch import IGNORE


def known_batches() -> list[DocumentBatch]:
    """Return batches of unlike sizes, so that a mean of batches is not the mean."""
    return [
        joined(
            caption_batch("a red circle", "a shape", "a teal triangle", seed=1),
            question_batch(("what color is the shape?", "red"), seed=2),
        ),
        question_batch(
            ("is there a circle?", "no"), ("what shape is present?", "a circle"), seed=3
        ),
        caption_batch("a blue shape", seed=4),
    ]


def known_samples() -> list[Known]:
    """Return samples, one of them without questions."""
    asked = [
        (("what color is the shape?", "red"),),
        (("is there a circle?", "no"), ("what shape is present?", "a circle")),
        (),
        (("is there a triangle?", "yes"),),
    ]
    pixels = images(len(asked), seed=9)
    return [
        Known(key=f"s{i}", image=pixels[i], caption="a shape", questions=questions)
        for i, questions in enumerate(asked)
    ]


def asked_batches() -> list[DocumentBatch]:
    """Return the samples with questions as a callback reads them, two at a time."""
    samples = [s for s in known_samples() if s.questions]
    return [
        DocumentBatch(
            documents=tuple(question_document(s.questions, key=s.key) for s in part),
            images=torch.stack([s.image for s in part]),
        )
        for part in (samples[:2], samples[2:])
    ]


class Batches(LightningDataModule):
    def __init__(self, batches: list[DocumentBatch], samples: list[Known]) -> None:
        super().__init__()
        self.batches = batches
        self.samples = samples

    def evaluation_samples(self, split: str = "test", limit: int | None = None) -> list[Known]:
        return self.samples[:limit]

    def _loader(self) -> DataLoader:
        # a list as data set: Lightning deals it out to ranks by itself
        return DataLoader(self.batches, batch_size=None)

    train_dataloader = val_dataloader = test_dataloader = _loader


class Keep(Callback):
    """Writes down what this rank has logged."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        torch.save(values, Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.pt")


def stacked(skip: type[SkipConnection], **settings: object) -> partial:
    return partial(Stacked, skips=skip, **settings)


def moved(skip: type[SkipConnection] = RandomSkip, **settings: object):
    torch.manual_seed(0)  # whatever ran before
    module = tiny_module(stacked(skip, **settings))
    perturb(module, 0.2)
    return module


def analysed(
    folder: Path, module, callback, batches=None, samples=None, stage: str = "validate"
) -> dict:
    trainer = make_trainer(folder, [callback])
    data = Batches(
        known_batches() if batches is None else batches,
        known_samples() if samples is None else samples,
    )
    getattr(trainer, stage)(module, datamodule=data, verbose=False)
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    said = MetricNames(known=frozenset(callback.metric_names()))
    assert all(map(said.has, values))
    return values


def states(module, batch: DocumentBatch):
    """Return what the streams of a Stacked model hold, computed by hand."""
    model = module.pretzel
    keys = [document.key for document in batch.documents]
    x = model.encode(batch.images, model.sample_noise(keys, module.seed, "evaluation"))
    packed = model.pack(batch.documents)
    inputs = stream_inputs(packed, model.shallow(x).z)
    y_vlm = model.interleaving.run_vlm(inputs, model.vlm, None)
    at_image = model.deep.embed(inputs.u, inputs.positions)
    read = model.interleaving.whitening(y_vlm)
    y_deep = model.interleaving(inputs, model.vlm, model.deep).deep
    return packed, y_vlm, at_image, read, y_deep


def answers(module, packed) -> torch.Tensor:
    return (packed.targets != IGNORE) & (
        packed.targets != module.pretzel.vlm.special.begin_of_image
    )


def by_hand(module) -> dict[str, float]:
    actual: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for i, batch in enumerate([*known_batches(), *asked_batches()]):
            packed, y_vlm, at_image, read, y_deep = states(module, batch)
            interleaving = module.pretzel.interleaving
            kinds = {"answer": answers(module, packed)}
            if i < len(known_batches()):
                kinds |= {"image": packed.is_image, "text": ~packed.is_image & packed.is_valid}
            added = {
                "vlm_skip": (read @ interleaving.vlm_skip.linear.weight.T, at_image),
                "deep_skip": (y_deep @ interleaving.deep_skip.linear.weight.T, y_vlm),
            }
            for name, (a, t) in added.items():
                for kind, at in kinds.items():
                    ratio = a[at].norm(dim=-1) / t[at].norm(dim=-1)
                    cosine = F.cosine_similarity(a[at], t[at], dim=-1)
                    actual.setdefault(f"analysis/{name}/{kind}_ratio", []).append(ratio)
                    actual.setdefault(f"analysis/{name}/{kind}_alignment", []).append(cosine)
    return {name: float(torch.cat(values).mean()) for name, values in actual.items()}


def no_hooks(module) -> bool:
    # Hooks on state_dict are the module's own.
    return not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_ratios_and_cosines_are_those_computed_by_hand(tmp_path: Path) -> None:
    module = moved()
    actual = analysed(tmp_path, module, SkipAnalysis(batch_size=2))
    expected = by_hand(module)
    assert actual.keys() <= expected.keys()
    said = {name for name in SkipAnalysis().metric_names() if not name.startswith("test/")}
    of_parts = {name for name in said if "/all_" in name}
    assert {re.sub("/[a-z]+_skip/", "/*/", name) for name in actual} == said - of_parts
    for name, value in actual.items():
        assert value == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert no_hooks(module)


def test_links_at_zero_have_ratio_zero_and_no_alignment(tmp_path: Path) -> None:
    for i, skip in enumerate((ZeroSkip, GatedSkip)):
        actual = analysed(tmp_path / str(i), tiny_module(stacked(skip)), SkipAnalysis())
        assert actual["analysis/vlm_skip/image_ratio"] == 0
        assert actual["analysis/deep_skip/text_ratio"] == 0
        assert set(actual.values()) == {0.0}
        assert not any(name.endswith("alignment") for name in actual)


def test_a_link_along_its_target_and_twice_as_long(tmp_path: Path) -> None:
    module = tiny_module(partial(Stacked, vlm_skip=False, skips=RandomSkip))

    def contribution(self, source: torch.Tensor) -> torch.Tensor:
        return -2 * self.seen

    skip = module.pretzel.interleaving.deep_skip
    skip.register_forward_pre_hook(lambda skip, args: setattr(skip, "seen", args[0]))
    skip.contribution = contribution.__get__(skip)
    actual = analysed(tmp_path, module, SkipAnalysis())
    assert actual["analysis/deep_skip/text_ratio"] == pytest.approx(2)
    assert actual["analysis/deep_skip/text_alignment"] == pytest.approx(-1)


def test_only_positions_where_a_link_is_open_count(tmp_path: Path) -> None:
    class FirstOnly(RandomSkip):
        def forward(self, target, source, where=None):
            return super().forward(target, source, where=where)

    module = tiny_module(partial(Stacked, vlm_skip=False, skips=FirstOnly))
    skip = module.pretzel.interleaving.deep_skip

    def first(skip, args, kwargs):
        where = torch.zeros(args[0].shape[:2], dtype=torch.bool)
        where[:, 0] = True
        return args[:2], {"where": where}

    skip.register_forward_pre_hook(first, with_kwargs=True)
    batch = question_batch(("is there a circle?", "no"))  # starts with begin-of-image, a text token
    actual = analysed(tmp_path, module, SkipAnalysis(num_samples=0), [batch])
    _, y_vlm, _, _, y_deep = states(module, batch)
    added = skip.contribution(y_deep)[:, 0]
    expected = float((added.norm(dim=-1) / y_vlm[:, 0].norm(dim=-1)).mean().detach())
    assert actual["analysis/deep_skip/text_ratio"] == pytest.approx(expected, rel=1e-4)
    assert "analysis/deep_skip/image_ratio" not in actual


def tiled(skip: type[SkipConnection]):
    """Return a module whose streams are joined after every second layer of the VLM."""
    module = tiny_module()
    model = module.pretzel
    parts = {"transform": model.deep.transform, "conditioner": TRANSFORMER}
    model.deep = DeepStream(model.latent.channels, model.latent.grid, 2, **parts)
    model.interleaving = Tiled(
        model.latent.channels, model.vlm.hidden_size, model.deep.width, word="VVF", skips=skip
    )
    model.interleaving.start_from(model.vlm)
    return module


def test_links_of_layers_are_told_apart(tmp_path: Path) -> None:
    actual = analysed(tmp_path / "a", tiled(RandomSkip), SkipAnalysis())
    names = {name.split("/")[1] for name in actual}
    assert names == {"vlm_links.1", "vlm_links.3", "flow_links.1", "last"}
    assert all(value != 0 for value in actual.values())
    actual = analysed(tmp_path / "b", tiled(ZeroSkip), SkipAnalysis())
    assert set(actual.values()) == {0.0}


def test_what_test_logs_has_names_of_its_own(tmp_path: Path) -> None:
    module = moved()
    tested = analysed(tmp_path / "a", module, SkipAnalysis(), stage="test")
    validated = analysed(tmp_path / "b", module, SkipAnalysis())
    assert tested == {f"test/{name}": value for name, value in validated.items()}


def test_a_second_pass_over_a_batch_is_not_counted(tmp_path: Path) -> None:
    class Twice(type(moved())):
        def validation_step(self, batch, batch_idx):
            first = super().validation_step(batch, batch_idx)
            super().validation_step(known_batches()[0], batch_idx)
            return first

    module = moved()
    once = analysed(tmp_path / "a", module, SkipAnalysis())
    module.__class__ = Twice
    assert analysed(tmp_path / "b", module, SkipAnalysis()) == once


def test_nothing_is_left_hooked_after_an_exception(tmp_path: Path) -> None:
    module = moved()

    run = module.pretzel.deep.forward

    def breaks(*args: object, **kwargs: object) -> torch.Tensor:
        if not no_hooks(module):
            raise RuntimeError("out of memory")
        return run(*args, **kwargs)

    module.pretzel.deep.forward = breaks
    for callback in (SkipAnalysis(), TextDrift()):
        with pytest.raises(RuntimeError, match="out of memory"):
            analysed(tmp_path, module, callback)
        assert no_hooks(module)


def test_training_steps_know_nothing_of_it(tmp_path: Path) -> None:
    module = moved()
    hooked = []

    class Watched(type(module)):
        def training_step(self, batch, batch_idx):
            hooked.append(not no_hooks(self))
            return super().training_step(batch, batch_idx)

    module.__class__ = Watched
    trainer = make_trainer(
        tmp_path, [SkipAnalysis(), TextDrift()], max_steps=3, val_check_interval=1, board=True
    )
    trainer.fit(module, datamodule=Batches(known_batches(), known_samples()))
    assert hooked == [False] * 3
    (logger,) = trainer.loggers
    assert isinstance(logger, TensorBoardLogger)
    board = EventAccumulator(logger.log_dir)
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"analysis/deep_skip/text_ratio", "analysis/vlm_skip/image_ratio"} <= tags
    assert {"val/text_drift", "val/text_perplexity_change"} <= tags
    assert len(board.Scalars("analysis/deep_skip/text_ratio")) == 3


def test_where_there_are_no_links_nothing_is_logged(tmp_path: Path) -> None:
    for callback in (SkipAnalysis(), TextDrift()):
        assert analysed(tmp_path, tiny_module(Unconditional), callback) == {}
        with pytest.raises(UserError, match=r"needs a module with a GenerativeModel"):
            analysed(tmp_path, Recaller(), callback)


def test_batches_of_captions_alone_are_analysed_without_answers(tmp_path: Path) -> None:
    batches = [caption_batch("a red circle")]
    actual = analysed(tmp_path, moved(), SkipAnalysis(), batches, samples=[])
    assert {name.split("/")[-1].split("_")[0] for name in actual} == {"image", "text"}
    actual = analysed(tmp_path, moved(), SkipAnalysis(num_samples=0), batches)
    assert not any("answer" in name for name in actual)


@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
def test_two_ranks_log_what_one_does(tmp_path: Path) -> None:
    batches = known_batches()[::2]  # one for each rank: unlike in size, the second without targets
    module = moved()
    one, two = tmp_path / "one", tmp_path / "two"
    expected = analysed(one, module, SkipAnalysis(), batches)
    expected |= analysed(one, module, TextDrift(), batches)
    two.mkdir()
    trainer = make_trainer(
        two,
        [SkipAnalysis(), TextDrift(), Keep()],
        devices=2,
        strategy="ddp_fork",
        use_distributed_sampler=True,
    )
    trainer.validate(module, datamodule=Batches(batches, known_samples()), verbose=False)
    ranks = [torch.load(two / f"rank{r}.pt", weights_only=True) for r in (0, 1)]
    assert ranks[0] == ranks[1] == pytest.approx(expected, rel=1e-4, abs=1e-6)
