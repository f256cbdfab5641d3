import pytest
import torch
from lightning.pytorch import Trainer

from pretzel.errors import UserError
from pretzel.sequence.document import (
    Document,
    DocumentBatch,
    Image,
    Text,
    caption_document,
    question_document,
)
from pretzel.training.schedule import Constant
from pretzel.training.vlm_pretraining import TinyVLMPretraining
from pretzel.vlm.tiny import TinyVLM

QUIET = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def small(seed: int = 0, export_to: str = "unused") -> TinyVLMPretraining:
    return TinyVLMPretraining(
        lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
        Constant(),
        export_to,
        seed=seed,
        hidden_size=32,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        max_noise=0.0,
    )


def batch() -> DocumentBatch:
    """A red and a blue picture, asked about, and one caption without a picture."""
    images = torch.full((2, 3, 32, 32), -1.0)
    images[0, 0] = images[1, 2] = 1.0
    question = "what color is the shape?"
    told = (Text(content="a green shape"), *question_document([(question, "green")]).segments[1:])
    return DocumentBatch(
        documents=(
            question_document([(question, "red")], key="red"),
            Document(key="green", segments=told),
            Document(key="blue", segments=(Image(), Text(content="a blue shape", role="target"))),
        ),
        images=images,
    )


def train(module: TinyVLMPretraining, steps: int, folder: str) -> dict[str, torch.Tensor]:
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        gradient_clip_val=1.0,
    )
    colors = ("red", "blue")
    told = DocumentBatch(
        documents=tuple(caption_document(f"a {color} shape", key=color) for color in colors),
        images=batch().images,
    )
    loaders = [
        torch.utils.data.DataLoader(data, batch_size=None) for data in ([batch()] * steps, [told])
    ]
    trainer.fit(module, *loaders)
    assert trainer.callback_metrics.keys() == module.metric_names()
    return trainer.callback_metrics


@QUIET
def test_it_learns_answers_and_captions_from_pictures(tmp_path):
    path = tmp_path / "deep" / "weights.safetensors"
    module = small(export_to=str(path))
    train(module, 150, str(tmp_path))
    images = batch().images
    question = "what color is the shape?"
    assert module.answer(images[:1], [question], ["red"]) == ["red"]
    exported = TinyVLM(str(path))
    assert exported.tokenizer.serialize() == module.tokenizer.serialize()
    for name, tensor in module.network.state_dict().items():
        torch.testing.assert_close(
            exported.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name
        )


@QUIET
def test_a_seed_fixes_the_weights_to_the_bit(tmp_path):
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file, seed in zip(files, (5, 5, 6), strict=True):
        torch.manual_seed(int(file.stem))  # the global state must not matter
        module = small(seed=seed, export_to=str(file))
        module.max_noise = 0.2
        train(module, 3, str(tmp_path))
    first, second, other = (file.read_bytes() for file in files)
    assert first == second
    assert first != other


def test_every_parameter_gets_a_gradient():
    module = small()
    nll, weights = module._nll(batch().documents, batch().images)
    (nll @ weights).backward()
    for name, parameter in module.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_documents_of_none_one_and_two_images_count_as_if_alone():
    module = small()
    question = ("what color is the shape?", "red")
    red, blue = (question_document([(question[0], name)]).segments for name in ("red", "blue"))
    both = (Text(content="a red shape"), *red, Text(content="a blue shape"), *blue)
    documents = (Document(key="both", segments=both), *batch().documents)
    images = torch.cat([batch().images.flip(0), batch().images])
    alone, start = [], 0
    for document in documents:
        end = start + document.num_images
        nll, weights = module._nll([document], images[start:end])
        alone.append(torch.stack([nll @ weights, weights.sum()]))
        start = end
    nll, weights = module._nll_by_images(documents, images)
    together = torch.stack([nll @ weights, weights.sum()])
    torch.testing.assert_close(together, torch.stack(alone).sum(0))


def test_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer: no file .*nothing\.json"):
        TinyVLMPretraining(
            torch.optim.AdamW, Constant(), "x", tokenizer=str(tmp_path / "nothing.json")
        )


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    module = small(export_to=str(tmp_path / "file" / "weights.safetensors"))
    with pytest.raises(UserError, match="export_to must name a file that can be written, got"):
        module.setup("fit")
