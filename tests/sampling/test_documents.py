"""Documents with images in them: the last one is generated behind all that stands before it."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image as PILImage
from tiny import images, perturb, tiny_module

from callbacks import PredictionWriter
from pretzel.errors import UserError
from pretzel.generation.conversation_batch import conversations_with
from pretzel.generation.documents import last_images
from pretzel.interleave import Stacked, TextPrefix
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, caption_document
from pretzel.training.text_image_model import TextImageModel

EDIT = (Image(), Text(content="make it blue"), Image())
LONGER = (Text(content="here"), Image(), Text(content="now make it a large teal circle"), Image())
ASKED = (
    Text(content="a red circle"),
    Image(),
    Text(content="what shape is it?"),
    Text(content="circle", role="target"),
    Text(content="another"),
    Image(),
    Text(content="and this is not read"),
)
DOCUMENTS = [
    Document(key="edit", segments=EDIT),
    caption_document("a red circle", key="plain"),
    Document(key="longer", segments=LONGER),
    Document(key="chain", segments=(*EDIT, Text(content="remove it"), Image())),
    Document(key="asked", segments=ASKED),
]
GIVEN = [images(n, seed=n) for n in (1, 0, 1, 2, 1)]


def made(interleaving=Stacked):
    module = tiny_module(interleaving).eval()
    perturb(module)
    return module


def test_documents_do_not_depend_on_those_beside_them():
    module = made()
    z = module.pretzel.noise(len(DOCUMENTS), 0)
    together = last_images(module, DOCUMENTS, GIVEN, z, seed=3).pixels
    for row, document in enumerate(DOCUMENTS):
        alone = last_images(module, [document], GIVEN[row : row + 1], z[row : row + 1], seed=3)
        torch.testing.assert_close(alone.pixels[0], together[row], atol=1e-4, rtol=0)


def test_an_edit_is_the_next_turn_of_a_conversation_and_sees_the_image():
    module = made()
    z = module.pretzel.noise(1, 0)
    conversation = conversations_with(module, ["edit"], max_length=64)
    conversation.show(GIVEN[0])
    conversation.say(["make it blue"])
    expected = conversation.generate(z)
    edited = last_images(module, DOCUMENTS[:1], GIVEN[:1], z).pixels
    torch.testing.assert_close(edited, expected)
    other = last_images(module, DOCUMENTS[:1], [-GIVEN[0]], z).pixels
    assert (other - edited).abs().max() > 1e-3


def test_an_answer_before_it_is_read_as_in_training():
    packer = made().pretzel.packer
    texts = [segment for segment in ASKED[2:5] if isinstance(segment, Text)]
    whole = packer([Document(key="", segments=tuple(texts))]).tokens[0].tolist()
    assert packer.ids_behind(texts) == whole
    assert Document(key="", segments=ASKED).prompt == "a red circle what shape is it? another"


def test_what_sees_no_image_refuses_to_edit():
    module = made(TextPrefix)
    message = "TextPrefix models no image behind another one, so it cannot edit: .* 2 in 'edit'"
    with pytest.raises(UserError, match=message):
        last_images(module, DOCUMENTS[:2], GIVEN[:2], module.pretzel.noise(2, 0))
    with pytest.raises(UserError, match="cannot edit"):
        TextImageModel(module).generate("make it blue", image=PILImage.new("RGB", (8, 8)))


def test_edits_are_predicted_and_written_with_what_was_given(tmp_path):
    module = made()
    pixels = torch.cat([images(2, seed=1), images(1, seed=2)])
    batch = DocumentBatch(documents=tuple(DOCUMENTS[:2]), images=pixels)
    writer = PredictionWriter(str(tmp_path))
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[writer], **options)
    (predicted,) = trainer.predict(module, torch.utils.data.DataLoader([batch], batch_size=None))
    assert predicted.shape == (2, 3, 8, 8)
    lines = (tmp_path / "prompts-rank0.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"key": "edit", "prompt": "make it blue", "given": ["edit.given-0.png"]},
        {"key": "plain", "prompt": "a red circle"},
    ]
    names = ["edit.given-0.png", "edit.png", "plain.png", "prompts-rank0.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_image_of_a_model_is_edited_whatever_its_size():
    model = TextImageModel(made())
    shown = PILImage.new("RGB", (20, 12), "red")
    first, second = model.generate(["make it blue", "make it red"], image=shown, seed=0)
    (alone,) = model.generate("make it red", image=shown, seed=0)
    assert alone.size == (8, 8)
    assert alone.tobytes() == second.tobytes() != first.tobytes()
