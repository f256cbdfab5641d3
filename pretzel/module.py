"""The training of Pretzel: losses, optimizer, logging, checkpoints; nothing mathematical."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer

from pretzel.ablation.ledger import write_json
from pretzel.errors import UserError
from pretzel.flow.block.base import at_least_float32
from pretzel.generative import LOG_2PI, GenerativeModel, ImageLikelihood, Scores
from pretzel.latent.pixels import Pixels
from pretzel.model import Pretzel
from pretzel.sampling.denoise import Denoiser, TrainableDenoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.images import sample_images
from pretzel.sampling.inversion import check_guided
from pretzel.sampling.record import sampling_record
from pretzel.sampling.samplers import Sampler
from pretzel.sampling.text import answer
from pretzel.schedule import Schedule
from pretzel.sequence import DocumentBatch
from pretzel.stages import SAMPLER, beginning, read_weights, train_only
from pretzel.typing import Float, Tensor
from pretzel.vlm.text_states import TextStates
from pretzel.weights import check_architecture, check_frozen


class PretzelModule(LightningModule):
    """Trains a :class:`pretzel.generative.GenerativeModel` with L = w L_NF + lambda L_NTP.

    L_NF is the mean over all image dimensions of z^2/2 + log sigma - log|det J|, L_NTP the mean
    cross-entropy over all supervised tokens; both means are over the global batch, so that the
    loss does not depend on how rows are dealt out to processes. A denoiser that is trained adds
    its own loss, whose gradient stays within it: the flow trains as it would without one.

    A stage (STARFlow2's S1, S2, S3) is what trains, which losses count and where it starts from:
    ``trains``, ``flow_weight``, ``text_weight`` and ``weights``.

    Args:
        pretzel: The model: a :class:`pretzel.model.Pretzel`, or a flow by itself.
        text_weight: Weight lambda of L_NTP; with 0 it has no gradient.
        optimizer: Optimizer of the trainable parameters.
        schedule: Learning-rate schedule over the steps of the run.
        guidance: Guidance of the images sampled in evaluations and predictions.
        denoiser: Denoiser of those images; one that is trained trains beside the flow.
        sampler: How the positions of those images are found.
        latent_norm_penalty: Weight of the mean square of u (STARFlow's 1e-4), part of L.
        learning_rate_scales: Factors on the learning rate of parameters, by the beginning of
            their name, for example ``{interleaving: 2.0}``. A name that ends in ``?`` may begin
            none, for parts that some arms lack: ``{"interleaving.adapter?": 4.0}``.
        seed: Seed of the training and sampling noise.
        weights: File written by :meth:`export`, or a checkpoint, to start from in place of random
            weights: those alone, averaged if averages were kept; the optimizer and the steps begin
            anew. A checkpoint that is resumed overrules it.
        flow_weight: Weight w of L_NF; with 0 it has no gradient.
        trains: Beginnings of the names of the parameters that train, ``?`` as above; None for all
            that are not frozen for good. The others are left out of the optimizer, not out of
            checkpoints.
        text_states: Keeps the text states of the vision-language model, for a stage in which it is
            a text encoder and no more.

    Raises:
        UserError: If a weight is negative, or both losses are off; if guidance cannot mix the
            model's transforms; if a name in ``learning_rate_scales`` or ``trains`` begins none of
            the trainable parameters and does not end in ``?``, or nothing trains; if L_NF is off
            and the model has no image-to-text; if ``weights`` cannot be read, are those of another
            architecture, or were trained around other frozen parts; if ``text_states`` would not
            do.
    """

    def __init__(
        self,
        pretzel: GenerativeModel,
        text_weight: float,
        optimizer: OptimizerCallable,
        schedule: Schedule,
        guidance: Guidance,
        denoiser: Denoiser,
        sampler: Sampler,
        latent_norm_penalty: float = 0.0,
        learning_rate_scales: dict[str, float] | None = None,
        seed: int = 0,
        weights: Path | None = None,
        flow_weight: float = 1.0,
        trains: list[str] | None = None,
        text_states: TextStates | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("text_weight", text_weight),
            ("flow_weight", flow_weight),
            ("latent_norm_penalty", latent_norm_penalty),
        ):
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must be 0 or positive, got {value}")
        if not flow_weight and not (text_weight and pretzel.answers):
            raise UserError(
                "flow_weight must be positive, got 0: "
                + ("text_weight is 0 too" if pretzel.answers else _has_no_text_stage(pretzel))
            )
        self.pretzel = pretzel
        self.register_state_dict_post_hook(_leave_out_frozen)  # type: ignore[no-untyped-call]
        self.text_weight = text_weight
        self.flow_weight = flow_weight
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.guidance = guidance
        check_guided(pretzel, guidance)
        self.denoiser = denoiser
        self.sampler = sampler
        self.denoiser.fit_to(pretzel.latent.channels, pretzel.latent.grid)
        self._last_sampling: dict[str, Any] = {}
        self._denoiser_lacks = False  # trained weights, although the flow has them
        self.latent_norm_penalty = latent_norm_penalty
        self.seed = seed
        self.learning_rate_scales: dict[str, float] = {}
        for name, scale in (learning_rate_scales or {}).items():
            # whether or not it trains in this stage
            prefix = beginning("learning_rate_scales", name, self._trainable())
            if not 0 <= scale < math.inf:
                raise UserError(
                    f"learning_rate_scales: {name!r} must be 0 or positive, got {scale}"
                )
            self.learning_rate_scales[prefix] = scale
        if trains is not None:
            train_only(trains, self._trainable())
        if weights is not None:
            self._start_from(weights)
        self.text_states = text_states
        if text_states is not None:
            text_states.check(pretzel)
            if text_weight > 0:
                raise UserError(
                    "text_states is for stages without a text loss (text_weight 0), got "
                    f"text_weight {text_weight}"
                )

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        named = dict(self.pretzel.named_parameters())
        if isinstance(self.denoiser, nn.Module):
            named |= self.denoiser.named_parameters(prefix="denoiser")
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}

    def _trained_denoiser(self) -> TrainableDenoiser | None:
        denoiser = self.denoiser
        if not isinstance(denoiser, TrainableDenoiser):
            return None
        return denoiser if any(p.requires_grad for p in denoiser.parameters()) else None

    # Training

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        seen = self.trainer.fit_loop.epoch_loop.total_batch_idx
        noise = self.pretzel.noise(len(batch.images), self.seed, "noise", self.global_rank, seen)
        x = self.pretzel.encode(batch.images, noise)
        known = self.text_states
        with known.serving(self.pretzel) if known is not None else contextlib.nullcontext():
            output = self.pretzel.score(batch.documents, x)
        loss, parts = self._loss(output)
        denoiser = self._trained_denoiser()
        if denoiser is not None:
            sigma = self.pretzel.latent.noise
            error, num_images = self._global_mean(
                denoiser.loss(x, x - sigma * noise, sigma) if len(x) else x.new_zeros(0)
            )
            loss = loss + error
            if num_images:
                parts["denoise"] = error
        size = len(batch)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size, sync_dist=True)
        for name, value in parts.items():
            self.log(f"train/{name}", value.detach(), batch_size=size, sync_dist=True)
        return loss

    def _loss(self, output: Scores) -> tuple[Tensor, dict[str, Tensor]]:
        dims = self.pretzel.latent.dims
        nll = -output.log_prob / dims - 0.5 * LOG_2PI
        flow, num_images = self._global_mean(nll)
        text, num_tokens = self._global_mean(output.token_nll)
        loss = nll.new_zeros(())
        if self.flow_weight:  # without it there is no gradient to take, not even one of zeros
            loss = loss + self.flow_weight * flow
        if self.text_weight:
            loss = loss + self.text_weight * text
        parts: dict[str, Tensor] = {}
        if num_images:
            parts["nll_flow"] = flow
        if num_tokens:
            parts["nll_text"] = text
        if self.latent_norm_penalty and num_images:
            wide = at_least_float32(output.u)
            penalty, _ = self._global_mean(output.u.square().mean(dim=(1, 2), dtype=wide))
            loss = loss + self.latent_norm_penalty * penalty
        has_flow = bool(self.flow_weight) and len(nll) > 0
        has_text = bool(self.text_weight) and len(output.token_nll) > 0
        if not has_flow or (self.pretzel.answers and not has_text):
            # Every process must take part in every gradient, whatever its rows hold (DDP).
            loss = loss + 0.0 * sum(p.sum() for p in self._trainable().values())
        return loss, parts

    def _global_mean(self, values: Float[Tensor, " k"]) -> tuple[Tensor, int]:
        """Return the share of this process in the mean over the global batch, and the count."""
        count = torch.tensor(float(len(values)), device=values.device)
        world = self.trainer.world_size
        if world > 1:
            count = self.trainer.strategy.reduce(count, reduce_op="sum")
        # Lightning averages gradients over processes, hence the factor of their number.
        return values.sum() * world / count.clamp(min=1), int(count)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over trainable parameters, with the schedule stepped each step."""
        groups: dict[float, list[tuple[str, torch.nn.Parameter]]] = {}
        for name, parameter in self._trainable().items():
            scales = [
                s for prefix, s in self.learning_rate_scales.items() if name.startswith(prefix)
            ]
            groups.setdefault(math.prod(scales), []).append((name, parameter))
        optimizer = self.optimizer_factory(
            [{"params": group, "lr_scale": scale} for scale, group in groups.items()]
        )
        for group in optimizer.param_groups:  # of which an optimizer may have made more
            group["lr"] *= group["lr_scale"]
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients, the denoiser's apart: its norm must not change how the flow moves."""
        apart = isinstance(self.denoiser, nn.Module) and gradient_clip_algorithm in (None, "norm")
        if not apart or not gradient_clip_val:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
            return
        assert isinstance(self.denoiser, nn.Module)
        parameters = list(self.denoiser.parameters())
        nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    # Evaluation: what the callbacks ask for

    def validation_step(
        self, batch: DocumentBatch, batch_idx: int
    ) -> Mapping[str, ImageLikelihood]:
        """Return the exact likelihood of the batch, which the callbacks report."""
        return {"likelihood": self.log_prob(batch)}

    def test_step(self, batch: DocumentBatch, batch_idx: int) -> Mapping[str, ImageLikelihood]:
        """Return the exact likelihood of the batch, which the callbacks report."""
        return {"likelihood": self.log_prob(batch)}

    def predict_step(self, batch: DocumentBatch, batch_idx: int) -> Float[Tensor, "b 3 h w"]:
        """Return one generated image for the text of each document."""
        prompts = [document.text for document in batch.documents]
        return self.sample(prompts, stream_key=("predict", batch_idx, self.global_rank))

    @property
    def can_answer(self) -> bool:
        """Whether the interleaving has image-to-text."""
        return self.pretzel.answers

    @property
    def reads_text(self) -> bool:
        """Whether images depend on their prompts."""
        return self.pretzel.reads_text

    def log_prob(self, batch: DocumentBatch) -> ImageLikelihood:
        """Return the exact log-likelihood of noised images, the noise keyed by sample."""
        keys = [
            document.key if i == 0 else f"{document.key}#{i}"
            for document in batch.documents
            for i in range(document.num_images)
        ]
        noise = self.pretzel.sample_noise(keys, self.seed, "evaluation")
        return self.pretzel.log_prob(batch, noise)

    def pixel_log_prob(self, batch: DocumentBatch) -> Float[Tensor, " m"]:
        """Return the log-density (nats, pixels in [-1, 1]) of images exactly as given.

        Raises:
            UserError: If the latent space is not pixels.
        """
        latent = self.pretzel.latent
        if not isinstance(latent, Pixels):
            raise UserError(
                "dequantised bits/dim need the latent space Pixels, an exact change of variables, "
                f"got {type(latent).__name__}"
            )
        return self.pretzel.score(batch.documents, latent.encode(batch.images)).log_prob

    def sample(
        self, prompts: Sequence[str], *, stream_key: Sequence[int | str]
    ) -> Float[Tensor, "n 3 h w"]:
        """Generate one image for each prompt, in [-1, 1].

        Args:
            prompts: Captions.
            stream_key: Names the noise; equal keys give all arms of a seed the same noise.
        """
        noise = self.pretzel.noise(len(prompts), self.seed, "sample", *stream_key)
        return self._images(prompts, noise)

    def check_denoiser(self) -> None:
        """Refuse to draw with a denoiser that was not trained with the flow.

        Raises:
            UserError: If its weights were not in the file that the flow's are from.
        """
        if self._denoiser_lacks:
            raise UserError(
                f"denoiser {type(self.denoiser).__name__} has no trained weights: the flow's were "
                "trained without one; choose another denoiser, or train this one with fit"
            )

    def _images(
        self, prompts: Sequence[str], noise: Float[Tensor, "n p d"]
    ) -> Float[Tensor, "n 3 h w"]:
        self.check_denoiser()
        made = sample_images(
            self.pretzel, prompts, noise, self.guidance, self.denoiser, self.sampler
        )
        self._last_sampling = sampling_record(self.sampler, self.guidance, self.denoiser, made.work)
        folder = getattr(self.logger, "log_dir", None) if self._trainer is not None else None
        if folder is not None and self.trainer.is_global_zero:
            write_json(Path(folder) / "sampling.json", self._last_sampling)
        return made.pixels

    @property
    def sampling_record(self) -> dict[str, Any]:
        """How the last images were sampled, in plain types; empty before the first."""
        return self._last_sampling

    def draw(
        self, prompts: Sequence[str], keys: Sequence[str], *, seed: int
    ) -> Float[Tensor, "n 3 h w"]:
        """Generate one image for each prompt, in [-1, 1], whatever the batch it is drawn in.

        Args:
            prompts: Captions.
            keys: Names the noise of each image.
            seed: Seed of the noise.
        """
        noise = self.pretzel.sample_noise(keys, seed, "draw")
        return self._images(prompts, noise)

    def answer(
        self,
        images: Float[Tensor, "n 3 h w"],
        questions: Sequence[str],
        keys: Sequence[str],
    ) -> list[str]:
        """Answer one question about each image, greedily.

        Questions with the same key are about the same image, which is read only once.

        Args:
            images: Images in [-1, 1], one for each question.
            questions: Questions.
            keys: Sample keys of the images; their noise is keyed by them.

        Raises:
            UserError: If the model has no image-to-text.
        """
        if not isinstance(self.pretzel, Pretzel):
            raise UserError(
                f"pretzel must be a model that answers questions, got {type(self.pretzel).__name__}"
            )
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        unique = sorted(first, key=lambda key: first[key])
        rank = {key: i for i, key in enumerate(unique)}
        rows = torch.tensor([first[key] for key in unique], device=images.device)
        of_question = torch.tensor([rank[key] for key in keys], device=images.device)
        with torch.inference_mode():
            noise = self.pretzel.sample_noise(unique, self.seed, "evaluation")
            x = self.pretzel.encode(images[rows], noise)
            return answer(self.pretzel, x, of_question, questions)

    # Checkpoints: frozen weights are named, not saved

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Load a state without the frozen parts.

        Raises:
            UserError: If the state is that of another architecture.
        """
        if strict:
            self.check_state(state_dict, "checkpoint")
        loaded: _IncompatibleKeys = super().load_state_dict(state_dict, False, assign)
        self._denoiser_lacks = self._denoiser_missing_from(state_dict)
        return loaded

    def check_state(self, state: Mapping[str, Tensor], what: str) -> None:
        """Refuse a state that does not fit.

        A denoiser is a part of its own: the flow of a state can be used with another one, and one
        without parameters leaves those of the state's alone.

        Args:
            state: What would be loaded; tensors may be without memory.
            what: Where it is from, the beginning of the message.

        Raises:
            UserError: If the state is that of another architecture; in ``fit``, if it has another
                denoiser, whose optimizer state would be missing or foreign.
        """
        own = self.state_dict()
        is_fit = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if not is_fit:
            missing = self._denoiser_missing_from(state)
            own = {name: value for name, value in own.items() if not (missing and _denoises(name))}
            if not any(map(_denoises, own)):
                state = {name: value for name, value in state.items() if not _denoises(name)}
        check_architecture(own, state, what)

    def _denoiser_missing_from(self, state: Mapping[str, Any]) -> bool:
        return any(map(_denoises, self.state_dict())) and not any(map(_denoises, state))

    def _start_from(self, path: Path) -> None:
        what = f"weights {path}"
        is_meta = self.pretzel.like.is_meta  # built to be checked and counted only
        start = read_weights(path, shapes_only=is_meta)
        if is_meta:
            self.check_state(start.state, what)
            return
        frozen = start.frozen
        named = {name: frozen[name] for name in self.pretzel.frozen if name in frozen}
        check_frozen({name: self.pretzel.frozen[name].identity for name in named}, named, what)
        self.check_state(start.state, what)
        self.load_state_dict(start.state)
        self.sampler.load_state(start.sampler)

    def setup(self, stage: str) -> None:
        """Take the hashes of the frozen parts while they are whole: a strategy may shard them."""
        if not self.pretzel.like.is_meta:
            self.frozen_identities()

    def on_fit_start(self) -> None:
        """Let a denoiser that has no trained weights train from its beginning; find text states."""
        if self._trained_denoiser() is not None:
            self._denoiser_lacks = False
        if self.text_states is not None:
            self.text_states.start(self.pretzel)

    def on_fit_end(self) -> None:
        """Keep the text states that are new."""
        states = self.text_states
        if states is not None:
            states.finish()
            rank_zero_info(
                f"text states of the VLM: {states.num_read} read, {states.num_computed} computed"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the frozen parts."""
        checkpoint["frozen"] = self.frozen_identities()
        checkpoint["sampler"] = self.sampler.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that was trained around other frozen parts.

        Raises:
            UserError: If a frozen part differs.
        """
        check_frozen(self.frozen_identities(), checkpoint.get("frozen", {}), "checkpoint")
        self.sampler.load_state(checkpoint.get("sampler", {}))

    def frozen_identities(self) -> dict[str, str]:
        """Return name and content hash of every frozen part."""
        return {name: part.identity for name, part in self.pretzel.frozen.items()}

    def export(self, path: Path) -> None:
        """Write the trained weights as safetensors, frozen parts named in the metadata."""
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        metadata = {**self.frozen_identities(), SAMPLER: json.dumps(self.sampler.state())}
        save_file(tensors, path, metadata=metadata)


def _has_no_text_stage(pretzel: GenerativeModel) -> str:
    part = pretzel.interleaving if isinstance(pretzel, Pretzel) else pretzel
    return (
        f"{type(part).__name__} has no image-to-text, so this stage does not exist for it; the "
        "next one starts from the weights of the one before"
    )


def _denoises(name: str) -> bool:
    return name.startswith("denoiser.")


def _leave_out_frozen(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
) -> None:
    assert isinstance(module, PretzelModule)
    frozen = tuple(f"{prefix}pretzel.{name}." for name in module.pretzel.frozen)
    for key in [key for key in state if key.startswith(frozen)]:
        del state[key]
