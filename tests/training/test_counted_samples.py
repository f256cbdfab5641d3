"""What the losses of a step count, as the plan of a grid says it."""

from dataclasses import dataclass, replace

import pytest
from tiny import tiny_pretzel

from datamodules import Captions, EasyVQA, Mixture, Questions, WebDatasetDataModule
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.sequence.document import caption_document, question_document
from pretzel.training.counted_samples import counted_samples
from pretzel.training.loss import Loss

LOSS = Loss(flow_weight=1.0, text_weight=0.5, latent_norm_penalty=0.0)
AFTER, WITHOUT = "images after text", "images without text"


@dataclass
class Four:
    """Two captions, one of them dropped, and two questions about one image, in batches of 8."""

    batch_size: int = 8

    def example_documents(self, count):
        dropped = caption_document("a shape", dropped=True)
        pair = ("what shape?", "circle")
        return [caption_document("a circle"), dropped, question_document([pair, pair]), dropped]


@pytest.mark.parametrize(
    ("interleaving", "counts"),
    [
        (Stacked, {AFTER: 2, WITHOUT: 6, "answers": 4}),
        (TextPrefix, {AFTER: 2, WITHOUT: 6}),
        (Unconditional, {WITHOUT: 8}),
    ],
)
def test_it_counts_what_the_model_reads(interleaving, counts):
    assert counted_samples(Four(), tiny_pretzel(interleaving), LOSS) == counts


def test_a_loss_that_is_off_counts_nothing():
    model = tiny_pretzel()
    assert counted_samples(Four(), model, replace(LOSS, flow_weight=0.0)) == {"answers": 4}
    assert "answers" not in counted_samples(Four(), model, replace(LOSS, text_weight=0.0))
    assert counted_samples(object(), model, LOSS) == {}


def test_the_shares_of_a_mixture_are_those_of_its_weights():
    recipe = Mixture([Captions(drop=0.0), Questions()], [0.75, 0.25])
    data = WebDatasetDataModule(EasyVQA(), recipe, 32, batch_size=16, steps_per_epoch=1)
    counts = counted_samples(data, tiny_pretzel(), LOSS)
    assert counts[AFTER] == pytest.approx(12, abs=0.6)
    assert counts[AFTER] + counts["answers"] == pytest.approx(16)
