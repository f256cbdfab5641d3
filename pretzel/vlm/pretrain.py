"""The stage that makes the tiny vision-language model."""

from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim.lr_scheduler import LambdaLR

from pretzel.errors import UserError
from pretzel.packing import IGNORE, PackedBatch, Packer
from pretzel.rng import stream
from pretzel.schedule import Schedule
from pretzel.sequence import DocumentBatch
from pretzel.typing import Bool, Float, Int, Tensor
from pretzel.vlm.network import TinyConfig, TinyNetwork
from pretzel.vlm.tokenizer import WordPieces
from pretzel.vlm.turns import separate_turns
from pretzel.vlm.weights import save_weights

TOKENIZER = Path(__file__).with_name("tokenizer.json")
FILE_NAME = "tiny.safetensors"


class TinyVLMPretraining(LightningModule):
    """Next-token prediction on captions, questions and answers, with and without images.

    Every text is modelled; supervised runs (answers, captions after an image, begin-of-image
    after a caption) count fully, other text ``context_weight``. Half of the images get Gaussian
    noise of a random strength up to ``max_noise``, as the flow's latents are noised too. When
    fitting ends, ``tiny.safetensors`` and its hash are written into the run's folder.

    Logged in validation: ``val/vqa`` (accuracy of all answers about images), ``val/vqa_yes_no``,
    ``val/vqa_open``, and ``val/text`` for answers in documents without an image.

    Args:
        optimizer: Gets the parameters.
        schedule: Learning-rate schedule over the steps of the run.
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
        UserError: If the tokenizer's file is missing.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        schedule: Schedule,
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
        super().__init__()
        path = TOKENIZER if tokenizer is None else Path(tokenizer)
        if not path.is_file():
            raise UserError(f"tokenizer: no file {path}")
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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedule."""
        optimizer = self.optimizer(self.network.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the mean negative log-likelihood of the batch's text, in nats per token."""
        draw = stream(self.seed, "vlm-noise", self.global_step, self.global_rank)
        packed = self.packer(batch.documents).to(self.device)
        nll, weights = self._nll(packed, self._noised(batch.images, draw))
        loss = nll @ weights / weights.sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: DocumentBatch, batch_idx: int) -> None:
        """Log how many answers come out right, each token the likeliest one."""
        packed = self.packer(batch.documents).to(self.device)
        for name, right in self._answers(packed, batch.images).items():
            value = torch.tensor(right, dtype=torch.float32).mean()
            self.log(
                f"val/{name}", value, on_epoch=True, batch_size=len(right), prog_bar=name == "vqa"
            )

    def on_fit_end(self) -> None:
        """Write the weights into the run's folder."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.export(Path(self.trainer.log_dir or self.trainer.default_root_dir) / FILE_NAME)

    def export(self, path: Path) -> str:
        """Write the weights, rounded to float16, and their hash; return the hash.

        Args:
            path: The safetensors file; :class:`pretzel.vlm.tiny.TinyVLM` reads it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        return save_weights(path, self.network, self.tokenizer)

    def _noised(
        self, images: Float[Tensor, "m 3 height width"], draw: torch.Generator
    ) -> Float[Tensor, "m 3 height width"]:
        strength = torch.rand(images.shape[0], 2, generator=draw)
        std = self.max_noise * strength[:, 0] * (strength[:, 1] < 0.5)
        noise = torch.randn(images.shape, generator=draw)
        return images + (std[:, None, None, None] * noise).to(images)

    def _states(
        self,
        packed: PackedBatch,
        images: Float[Tensor, "m 3 height width"],
        index: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b 1 l l"],
    ) -> Float[Tensor, "b l h"]:
        embeddings = self.network.embed(packed.tokens)
        if images.shape[0]:
            seen = self.network.vision(images).flatten(0, 1)
            embeddings = embeddings.masked_scatter(packed.is_image[..., None], seen)
        states: Tensor = self.network(embeddings, index, mask)
        return states

    def _nll(
        self, packed: PackedBatch, images: Float[Tensor, "m 3 height width"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        turns = separate_turns(packed, self.tokenizer.special, self.context_weight)
        states = self._states(packed, images, turns.index, turns.mask)
        counts = turns.weights > 0
        logits = self.network.logits(states[counts])
        nll = F.cross_entropy(logits, turns.targets[counts], reduction="none")
        return nll, turns.weights[counts]

    def _answers(
        self, packed: PackedBatch, images: Float[Tensor, "m 3 height width"]
    ) -> dict[str, list[bool]]:
        """Return, by kind of answer, which ones come out right to the last token."""
        special = self.tokenizer.special
        turns = separate_turns(packed, special, 0.0)
        states = self._states(packed, images, turns.index, turns.mask)
        guesses = self.network.logits(states).argmax(-1)
        right: dict[str, list[bool]] = defaultdict(list)
        for row in range(guesses.shape[0]):
            kind = "vqa" if bool(packed.is_image[row].any()) else "text"
            expected: list[int] = []
            guessed: list[int] = []
            supervised = packed.targets[row] != IGNORE
            pairs = zip(packed.targets[row][supervised], guesses[row][supervised], strict=True)
            for target, guess in pairs:
                if int(target) == special.begin_of_image:
                    continue
                expected.append(int(target))
                guessed.append(int(guess))
                if int(target) == special.end_of_text:
                    right[kind].append(expected == guessed)
                    if kind == "vqa":
                        closed = self.tokenizer.decode(expected) in ("yes", "no")
                        right["vqa_yes_no" if closed else "vqa_open"].append(right[kind][-1])
                    expected, guessed = [], []
        return right
