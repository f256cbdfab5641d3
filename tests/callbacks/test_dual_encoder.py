"""The dual encoder tells which caption is an image's."""

import pytest
import torch
from lightning.pytorch import Trainer

from callbacks import DualEncoderTraining, EmbeddedMatch
from callbacks.dual_encoder.network import load_dual_encoder
from datamodules import EasyVQA
from pretzel.errors import UserError
from pretzel.sequence.document import DocumentBatch, caption_document, question_document


@pytest.fixture(scope="module")
def pairs():
    """Thirty-two test images of easy-VQA with full captions."""
    samples = (s for s in EasyVQA().samples("test", 64) if len(s.caption.split()) == 3)
    chosen = [next(samples) for _ in range(32)]
    return torch.stack([s.image for s in chosen]), [s.caption for s in chosen]


def measured(images, prompts):
    metric = EmbeddedMatch()
    metric.prepare(torch.device("cpu"))
    metric.update(images[:20], prompts[:20])
    metric.update(images[20:], prompts[20:])
    values = metric.compute()
    scores = metric.image_scores()[metric.name]
    assert len(scores) == len(prompts)
    assert sum(scores) / len(scores) == values[metric.name]
    return values


def test_real_images_match_their_captions_and_not_others(pairs):
    images, captions = pairs
    own = measured(images, captions)
    assert own["match_embedded_recall1"] > 0.8
    assert own["match_embedded_n"] == 32
    shuffled = measured(images, captions[1:] + captions[:1])
    assert shuffled["match_embedded"] < own["match_embedded"] - 30
    assert shuffled["match_embedded_recall1"] < 0.3
    encoder = load_dual_encoder()
    cosines = (encoder.embed_images(images) * encoder.embed_texts(captions)).sum(dim=1)
    assert own["match_embedded"] == pytest.approx(100 * float(cosines.mean()), rel=1e-5)


def test_a_caption_is_read_alone_and_in_order():
    encoder = load_dual_encoder()
    texts = ["a red circle", "a red circle left of a blue rectangle", ""]
    together = encoder.embed_texts(texts)
    for text, embedding in zip(texts, together, strict=True):
        assert torch.allclose(encoder.embed_texts([text])[0], embedding, atol=1e-5)
    swapped = encoder.embed_texts(["a blue rectangle left of a red circle"])[0]
    assert not torch.allclose(swapped, together[1], atol=1e-3)


def test_long_prompts_are_cut_and_counted(pairs):
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than 48 word pieces"):
        values = measured(pairs[0][:2], ["a red circle", "a red circle " * 30])
    assert values["match_embedded_truncated"] == 0.5


def test_images_of_equal_captions_share_the_probability(pairs):
    images, _ = pairs
    module = DualEncoderTraining()
    captions = ["a red circle", "a blue circle", "a red circle"]
    batch = DocumentBatch(
        documents=tuple(caption_document(c, key=str(i)) for i, c in enumerate(captions)),
        images=images[:3],
    )
    module.log = lambda *args, **kwargs: None
    loss = module.training_step(batch, 0)
    encoder = module.encoder
    with torch.no_grad():
        similarity = encoder.embed_images(images[:3]) @ encoder.embed_texts(captions).T
        logits = module.log_scale.exp() * similarity
        by_image, by_text = logits.softmax(dim=1).log(), logits.softmax(dim=0).log()
    first = -(by_image[0, 0] + by_image[0, 2] + by_text[0, 0] + by_text[0, 2]) / 4
    second = -(by_image[1, 1] + by_text[1, 1]) / 2
    third = -(by_image[2, 0] + by_image[2, 2] + by_text[2, 0] + by_text[2, 2]) / 4
    assert loss.item() == pytest.approx((first + second + third).item() / 3, rel=1e-2)


def test_it_learns_and_what_is_written_is_what_was_trained(pairs, tmp_path):
    images, captions = pairs
    documents = tuple(caption_document(c, key=str(i)) for i, c in enumerate(captions))
    batch = DocumentBatch(documents=documents, images=images)
    path = tmp_path / "encoder.safetensors"
    torch.manual_seed(0)
    module = DualEncoderTraining(export_to=str(path))
    trainer = Trainer(
        max_epochs=30, check_val_every_n_epoch=30, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    trainer.fit(module, loader, loader)
    assert trainer.callback_metrics["val/retrieval_to_text_recall1"] > 0.9
    assert trainer.callback_metrics.keys() <= module.metric_names()
    written = load_dual_encoder(path)
    assert torch.allclose(
        written.embed_texts(captions), module.encoder.embed_texts(captions), atol=1e-2
    )


def test_mistakes_are_named():
    batch = DocumentBatch(
        documents=(question_document([("is it red?", "yes")], key="q"),),
        images=torch.zeros(1, 3, 64, 64),
    )
    with pytest.raises(UserError, match="DualEncoderTraining needs documents of one caption"):
        DualEncoderTraining().training_step(batch, 0)
