"""Schedules, recipes, sources and metrics that are wrong in one place."""

from functools import partial

import torch

from broken_parts import Broken
from callbacks.easy_vqa.shape_accuracy import ShapeAccuracy
from callbacks.feature_metrics.fid import FID
from callbacks.feature_metrics.kid import KID
from callbacks.laws import distance
from datamodules.recipes.illustrated import Illustrated
from datamodules.recipes.recipe import Captions, check_sample
from datamodules.sample import Unusable
from datamodules.sources.embedded import FluentEmoji
from pretzel.flow import FractionSplit, ParameterSplit
from pretzel.tarflow.condition import ClassNames
from pretzel.training.schedule import WarmupCosine


class CountsItsCalls(WarmupCosine):
    """Right as long as every step is asked for once, in order, from the first on."""

    def __init__(self):
        super().__init__(warmup_steps=10)
        self.calls = 0

    def factor(self, step, total_steps):
        self.calls += 1
        return super().factor(min(step, self.calls), total_steps)


class BelowZero(WarmupCosine):
    """Goes on falling behind the last step."""

    def factor(self, step, total_steps):
        return super().factor(step, total_steps) - step / (50 * total_steps)


class DrawsFromTheGlobalState(Captions):
    """Drops by a number that depends on all that was drawn before."""

    def documents(self, sample, generator):
        (document,) = super().documents(sample, generator)
        keep = torch.rand(()).item() > 0.0
        return (document,) if keep else ()


class FirstEpochOnly(Captions):
    """Never drops a caption that it has not seen before."""

    def __init__(self, drop):
        super().__init__(drop)
        self.seen = set()

    def draw(self, sample, following, generator):
        drop, self.drop = self.drop, self.drop if sample.key in self.seen else 0.0
        documents = super().draw(sample, following, generator)
        self.drop = drop
        self.seen.add(sample.key)
        return documents


class ForgetsThePicture(Captions):
    """Dropped captions take their image with them, by mistake."""

    def draw(self, sample, following, generator):
        (illustrated,) = super().draw(sample, following, generator)
        dropped = illustrated.document.segments[0].role == "dropped"
        return (Illustrated(document=illustrated.document, pixels=()) if dropped else illustrated,)


class TakesAnything(Captions):
    """Accepts images without a caption, and asks the model to paint nothing."""

    def check(self, sample):
        check_sample(self, sample, caption=False, questions=False)


class ChecksAlone(Captions):
    """Refuses captions of two words when it is asked, not when it draws."""

    def check(self, sample):
        super().check(sample)
        if len(sample.caption.split()) < 3:
            raise Unusable("no caption")

    def draw(self, sample, following, generator):
        return Captions(self.drop).draw(sample, following, generator)


class TestsOnTraining(FluentEmoji):
    """The last training shard serves as validation data."""

    def shards(self, split):
        return super().shards("train")[-1:] if split == "val" else super().shards(split)

    def num_samples(self, split):
        return None


class ValidatesOnTest(FluentEmoji):
    """The test split serves as validation data too."""

    def shards(self, split):
        return super().shards("test" if split == "val" else split)

    def num_samples(self, split):
        return super().num_samples("test" if split == "val" else split)


class ReadsConsumedAgain(FluentEmoji):
    """A part of a shard begins at its first sample."""

    def read(self, shard, first=0, step=1):
        return super().read(shard, 0, step)


class MeanOfBatches(ShapeAccuracy):
    """Averages over batches, of which the last is smaller."""

    def reset(self):
        super().reset()
        self.means = []

    def update(self, images, prompts):
        self._hits = []
        super().update(images, prompts)
        self.means.append(super().compute())

    def compute(self):
        n = sum(mean["shape_n"] for mean in self.means)
        means = {k: sum(m[k] for m in self.means) / len(self.means) for k in self.means[0]}
        return means | {"shape_n": n}


class Percentages(ShapeAccuracy):
    """Scores of single images are percentages, and the values are not."""

    def image_scores(self):
        scores = super().image_scores().items()
        return {name: [100 * score for score in own] for name, own in scores}

    def compute(self):
        values = super().compute()
        return {name: value / (1 if name == "shape_n" else 100) for name, value in values.items()}


class KeepsImages(FID):
    """Averages over all evaluations so far, as a running metric does."""

    def reset(self):
        pass


class MovesTheSeed(KID):
    """Draws its subsets from the state that dropout draws from."""

    def compute(self):
        self.seed = int(torch.randint(2**31, ()))
        return super().compute()


class DearIsDeep(ParameterSplit):
    """Multiplies by the ratio of costs where it should divide."""

    def layers(self, costs):
        layers = super().layers(costs)
        ratio = costs().deep // costs().shallow
        return type(layers)(shallow=layers.shallow, deep=layers.deep * ratio**2)


class Halves(FractionSplit):
    """Divides without rounding."""

    def layers(self, costs):
        layers = super().layers(costs)
        return type(layers)(shallow=tuple(n / 1 for n in layers.shallow), deep=layers.deep)


class NullIsTheFirst(ClassNames):
    """The null context is class 0, whose images guidance then avoids."""

    def __call__(self, texts, device):
        return super().__call__(texts, device).clamp(min=0)


CAPTIONS = partial(Captions, drop=0.5)
NAMES = ["circle", "square", "triangle"]
BROKEN = [
    Broken(CountsItsCalls, WarmupCosine, "laws.factors_follow_from_the_step"),
    Broken(BelowZero, WarmupCosine, "laws.factors_are_numbers"),
    Broken(partial(DrawsFromTheGlobalState, 0.5), CAPTIONS, "recipes.choices_belong_to_the_place"),
    Broken(partial(FirstEpochOnly, 0.99), CAPTIONS, "recipes.choices_belong_to_the_place"),
    Broken(partial(ForgetsThePicture, 0.5), CAPTIONS, "recipes.images_have_their_pixels"),
    Broken(partial(TakesAnything, 0.5), CAPTIONS, "recipes.no_text_is_empty"),
    Broken(partial(ChecksAlone, 0.5), CAPTIONS, "recipes.what_is_refused_is_never_drawn"),
    Broken(TestsOnTraining, FluentEmoji, "sources.splits_share_no_sample"),
    Broken(ValidatesOnTest, FluentEmoji, "sources.splits_share_no_sample"),
    Broken(ReadsConsumedAgain, FluentEmoji, "sources.a_part_of_a_shard_is_read"),
    Broken(MeanOfBatches, ShapeAccuracy, "metrics.batches_do_not_matter"),
    Broken(Percentages, ShapeAccuracy, "metrics.scores_of_images_have_the_values_as_means"),
    Broken(partial(distance, KeepsImages), partial(distance, FID), "metrics.resetting_forgets"),
    Broken(
        partial(distance, MovesTheSeed, subsets=3, subset_size=4),
        partial(distance, KID, subsets=3, subset_size=4),
        "metrics.measuring_touches_nothing",
    ),
    Broken(
        partial(DearIsDeep, 10**6, 0.4, 2),
        partial(ParameterSplit, 10**6, 0.4, 2),
        "splits.dearer_layers_are_not_more",
    ),
    Broken(
        partial(Halves, 10, 0.4, 2),
        partial(FractionSplit, 10, 0.4, 2),
        "splits.layers_are_whole_numbers",
    ),
    Broken(
        partial(NullIsTheFirst, NAMES),
        partial(ClassNames, NAMES),
        "conditions.every_text_has_its_own_context",
    ),
]
