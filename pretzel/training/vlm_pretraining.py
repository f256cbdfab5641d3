"""Stage that trains the tiny vision-language model from random weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.files.checked import save_sha256
from pretzel.files.shipped import file_of
from pretzel.rng import stream
from pretzel.sequence.document import Document, DocumentBatch, Image, Text
from pretzel.sequence.packer import Packer
from pretzel.training.exporting_stage import ExportingStage
from pretzel.training.schedule import Schedule, with_schedule
from pretzel.training.separate_questions import separate_questions
from pretzel.training.world_check import WordCounts, after_words
from pretzel.typing import Float, Tensor
from pretzel.vlm.tiny.answers import greedy_answers
from pretzel.vlm.tiny.network import TinyConfig, TinyNetwork
from pretzel.vlm.tiny.tokenizer import SHIPPED_TOKENIZER, WordPieces
from pretzel.vlm.tiny.weights import save_weights


class TinyVLMPretraining(ExportingStage):
    """Next-token prediction on captions, questions and answers, with and without images.

    Every text is modelled; supervised runs (answers, captions after an image, begin-of-image
    after a caption) count fully, other text ``context_weight``. Half of the images get Gaussian
    noise of a random strength up to ``max_noise``, as the flow's latents are noised too.
    Validation measures how well captions are predicted from images; for questions add the callback
    ``VQAAccuracy``, which the module serves.

    Args:
        optimizer: Gets the parameters.
        schedule: Learning-rate schedule over the steps of the run.
        export_to: File written when fitting ends, with its hash beside it:
            :class:`pretzel.vlm.tiny.TinyVLM` reads it; none writes only Lightning's checkpoints.
        seed: Fixes initial weights and noise.
        tokenizer: JSON file of word pieces, or None for the one shipped here.
        hidden_size: Width of the model.
        num_layers: Its decoder layers.
        num_heads: Its attention heads.
        intermediate_size: Width inside its gated MLPs.
        image_size: Side of the images, in pixels.
        patch_size: Side of their patches, in pixels.
        context_weight: Weight of text that is not supervised.
        max_noise: Largest standard deviation of the noise, pixels scaled to [-1, 1].

    Raises:
        UserError: If the tokenizer's file is missing, a weight or a noise is negative, or
            ``export_to`` cannot be written.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        export_to: str | None = None,
        seed: int = 0,
        tokenizer: str | None = None,
        hidden_size: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        intermediate_size: int = 320,
        image_size: int = 32,
        patch_size: int = 4,
        context_weight: float = 0.1,
        max_noise: float = 0.2,
    ) -> None:
        super().__init__(export_to)
        path = file_of("tokenizer", tokenizer, SHIPPED_TOKENIZER)
        if not path.is_file():
            raise UserError(f"tokenizer: no file {path}")
        for name, value in (("context_weight", context_weight), ("max_noise", max_noise)):
            if value < 0:
                raise UserError(f"{name} must be 0 or positive, got {value}")
        self.tokenizer = WordPieces(path.read_text(encoding="utf-8"))
        config = TinyConfig(
            vocab_size=self.tokenizer.vocab_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            intermediate_size=intermediate_size,
            image_size=image_size,
            patch_size=patch_size,
        )
        # The global random state belongs to the data and the trainer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = TinyNetwork(config)
        side = image_size // patch_size
        self.packer = Packer(self.tokenizer.encode, self.tokenizer.special, (side, side))
        self.optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.context_weight = context_weight
        self.max_noise = max_noise
        self._words: WordCounts | None = None  # of the first batches of a fit

    def metric_names(self) -> set[str]:
        """Return the names of the losses."""
        return {"train/loss", "val/loss"}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, with the schedule stepped each step."""
        return with_schedule(self.optimizer(self.parameters()), self.schedule, self.trainer)

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the mean negative log-likelihood of the global batch's text, in nats per token."""
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == 0:  # not where a fit is resumed
            self._words = WordCounts(encode=self.tokenizer.encode, decode=self.tokenizer.decode)
        if self._words is not None:
            remedy = "learn one from these (pretzel data tokenizer) and name it by `tokenizer`"
            self._words = after_words(self._words, batch.documents, "tokenizer", remedy)
        generator = stream(self.seed, "vlm-noise", self.global_step, self.global_rank)
        images = self._noised(batch.images, generator)
        loss, _ = self.global_mean(*self._nll_by_images(batch.documents, images))
        if not len(images):
            loss = self.touching_all(loss)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Log the loss of captions after their images, and of others' text, in nats per token."""
        captions = [
            Document(key=d.key, segments=(Image(), Text(content=d.text, role="target")))
            if d.num_images == 1
            else d
            for d in batch.documents
        ]
        nll, weights = self._nll_by_images(captions, batch.images)
        loss = nll @ weights / weights.sum()
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch))

    @property
    def can_answer(self) -> bool:
        """Whether questions about images can be answered: yes."""
        return True

    def answer(
        self, images: Float[Tensor, "n 3 height width"], questions: list[str], keys: list[str]
    ) -> list[str]:
        """Answer one question about each image in [-1, 1], greedily, with the model's own tower.

        Images with equal keys are the same one, which is read once.
        """
        if not questions:
            return []
        unique = list(dict.fromkeys(keys))
        return greedy_answers(
            self.network,
            self.tokenizer,
            images[[keys.index(key) for key in unique]].to(self.device),
            torch.tensor([unique.index(key) for key in keys], device=self.device),
            questions,
        )

    def on_fit_end(self) -> None:
        """Write the weights where ``export_to`` says, and their hash beside them."""
        super().on_fit_end()
        if (path := self.export_path) is not None:
            save_sha256(path)

    @override
    def export(self, path: Path) -> None:
        """Write the weights, rounded to float16, for :class:`pretzel.vlm.tiny.TinyVLM`."""
        save_weights(path, self.network, self.tokenizer)

    def _noised(
        self, images: Float[Tensor, "m 3 height width"], generator: torch.Generator
    ) -> Float[Tensor, "m 3 height width"]:
        strength = torch.rand(images.shape[0], 2, generator=generator)
        std = self.max_noise * strength[:, 0] * (strength[:, 1] < 0.5)
        noise = torch.randn(images.shape, generator=generator)
        return images + (std[:, None, None, None] * noise).to(images)

    def _nll_by_images(
        self, documents: Sequence[Document], images: Float[Tensor, "m 3 height width"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Pack each document with others of as many images, which needs little padding."""
        numbers = torch.tensor([document.num_images for document in documents])
        beside = numbers.repeat_interleave(numbers).to(images.device)
        parts = [
            self._nll(
                [document for document in documents if document.num_images == number],
                images[beside == number],
            )
            for number in sorted(set(numbers.tolist()), reverse=True)
        ]
        nll, weights = (torch.cat(part) for part in zip(*parts, strict=True))
        return nll, weights

    def _nll(
        self, documents: Sequence[Document], images: Float[Tensor, "m 3 height width"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        packed = self.packer(documents).to(self.device)
        rows = separate_questions(packed, self.tokenizer.special, self.context_weight)
        embeddings = self.network.embed(packed.tokens)
        if len(images):
            patches = self.network.vision(images).flatten(0, 1)
            embeddings = embeddings.masked_scatter(packed.is_image[..., None], patches)
        states = self.network(embeddings, rows.index, rows.mask)
        counts = rows.weights > 0
        logits = self.network.logits(states[counts])
        nll = F.cross_entropy(logits, rows.targets[counts], reduction="none")
        return nll, rows.weights[counts]
