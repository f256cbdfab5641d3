"""Interleavings, and what stands in them, that are wrong in one place."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from broken_parts import Broken
from pretzel.interleave import Stacked, Tiled, ZeroSkip
from pretzel.testing import tiny_pretzel


def changed(values, **changes):
    return type(values)(**{**vars(values), **changes})


class SeesTheImageInEval(Stacked):
    """Looks ahead where nobody trains."""

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        if self.training or caches is not None:
            return outputs
        image = (inputs.u * inputs.is_image[..., None]).mean(dim=(1, 2))
        return changed(outputs, deep=outputs.deep + 0.1 * image[:, None, None])


class FifthRowReadsTheFirst(Stacked):
    """A broadcast that goes wrong in batches larger than four."""

    def forward(self, inputs, vlm, deep, caches=None):
        if len(inputs.u) > 4:
            rows = torch.arange(len(inputs.u)).where(torch.arange(len(inputs.u)) != 4, 0)
            inputs = changed(inputs, u=inputs.u[rows])
        return super().forward(inputs, vlm, deep, caches)


class ForgetsLongPrompts(Stacked):
    """A cache window of sixteen positions: longer text is not all attended to while sampling."""

    def forward(self, inputs, vlm, deep, caches=None):
        if caches is not None and inputs.mask.shape[-1] > 16 and inputs.is_image.all():
            mask = inputs.mask.clone()
            mask[..., :-16] = False
            inputs = changed(inputs, mask=mask)
        return super().forward(inputs, vlm, deep, caches)


class DetachesTheDeepSkip(ZeroSkip):
    """The right values; but text teaches the flow nothing."""

    def contribution(self, source):
        return super().contribution(source.detach())


class ClampsTheSkip(ZeroSkip):
    """Limits what is added without a gradient through the limit."""

    def contribution(self, source):
        added = super().contribution(source)
        return added + (added.clamp(-0.2, 0.2) - added).detach()


class DrawsBeforeEachStep(Stacked):
    """Reproducible dropout, it hopes: all steps of all seeds drop the same."""

    def forward(self, inputs, vlm, deep, caches=None):
        torch.manual_seed(0)
        return super().forward(inputs, vlm, deep, caches)


class SeedsItsSkip(ZeroSkip):
    def __init__(self, source, target):
        torch.manual_seed(1234)
        super().__init__(source, target)


class RunningMean(Stacked):
    """Centres u by a running mean, which no state dict holds."""

    mean = 0.0

    def forward(self, inputs, vlm, deep, caches=None):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * float(inputs.u.detach().mean())
        return super().forward(changed(inputs, u=inputs.u - self.mean), vlm, deep, caches)


class BatchNormed(Stacked):
    """Right in evaluation mode, and a row sees the others in training."""

    def __init__(self, channels, hidden_size, width):
        super().__init__(channels, hidden_size, width)
        self.norm = nn.BatchNorm1d(channels, affine=False)

    def forward(self, inputs, vlm, deep, caches=None):
        u = self.norm(inputs.u.mT).mT
        return super().forward(changed(inputs, u=u), vlm, deep, caches)


class ReadsNoCaption(Stacked):
    """The text is all in the sequence, and the flow reads the same vector at every word."""

    def forward(self, inputs, vlm, deep, caches=None):
        tokens = torch.where(inputs.is_image, inputs.tokens, 5)
        return super().forward(changed(inputs, tokens=tokens), vlm, deep, caches)


class OpensInTraining(Stacked):
    """Switches the skip off for evaluation, as if it were dropout."""

    def forward(self, inputs, vlm, deep, caches=None):
        skip = self.deep_skip
        if not self.training:
            self.deep_skip = None
        outputs = super().forward(inputs, vlm, deep, caches)
        self.deep_skip = skip
        return outputs


class DropsInEval(Stacked):
    """Dropout that is also there where nobody trains; ``p`` is one of the functional form's two."""

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return changed(outputs, deep=F.dropout(outputs.deep, 0.1))


class Drops(Stacked):
    """The same, right."""

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return changed(outputs, deep=F.dropout(outputs.deep, 0.1, self.training))


class NarrowsInTheVlm(Tiled):
    """Casts what the flow reads of the VLM to half precision."""

    def forward(self, inputs, vlm, deep, caches=None):
        outputs = super().forward(inputs, vlm, deep, caches)
        return changed(outputs, deep=outputs.deep.bfloat16().to(outputs.deep))


def skipping(kind):
    return partial(Stacked, skips=kind)


WHOLE = partial(tiny_pretzel, Stacked)
BROKEN = [
    *(
        Broken(partial(tiny_pretzel, part), WHOLE, law)
        for part, law in [
            (SeesTheImageInEval, "models.means_see_only_the_past"),
            (SeesTheImageInEval, "models.likelihood_is_exact"),
            (FifthRowReadsTheFirst, "models.rows_are_independent"),
            (ForgetsLongPrompts, "generation.chunks_equal_the_whole"),
            (ForgetsLongPrompts, "generation.guided_samples_mix_uncached_branches"),
            (skipping(DetachesTheDeepSkip), "models.gradients_are_those_of_finite_differences"),
            (skipping(ClampsTheSkip), "models.gradients_are_those_of_finite_differences"),
            (DrawsBeforeEachStep, "models.calls_leave_no_trace"),
            (skipping(SeedsItsSkip), "randomness.building_seeds_nothing"),
            (RunningMean, "models.state_dict_holds_everything"),
            (BatchNormed, "models.rows_are_independent"),
            (ReadsNoCaption, "models.text_conditions_images"),
            (OpensInTraining, "models.evaluation_computes_what_was_trained"),
        ]
    ),
    *(
        Broken(partial(tiny_pretzel, DropsInEval), partial(tiny_pretzel, Drops), f"models.{law}")
        for law in ("calls_leave_no_trace", "rows_are_independent")
    ),
    Broken(
        partial(tiny_pretzel, partial(NarrowsInTheVlm, word="VVF")),
        partial(tiny_pretzel, partial(Tiled, word="VVF")),
        "models.gradients_are_those_of_finite_differences",
    ),
]
