"""Training of the models: steps, optimizer, logging, and what the callbacks evaluate."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.optimizer import Optimizer

from pretzel.errors import UserError
from pretzel.files.atomic import write_json
from pretzel.flow.sizes import check_sizes
from pretzel.generation.answers import answer_by_key, choice_log_probs, keyed_latents
from pretzel.generation.documents import last_images
from pretzel.generation.sampling_record import sampling_record, work_record
from pretzel.latent.generative_model import GenerativeModel, ImageLikelihood, Scores
from pretzel.latent.pixels import Pixels
from pretzel.media.base import Medium
from pretzel.media.integers import content_key
from pretzel.model import Pretzel
from pretzel.sampling.denoisers import Denoiser
from pretzel.sampling.guidance import Guidance
from pretzel.sampling.inversion import check_guided
from pretzel.sampling.samplers import Sampler
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, caption_document
from pretzel.training.counted_samples import counted_samples
from pretzel.training.encodings import image_encodings, mean_embeddings
from pretzel.training.example_forward import run_example
from pretzel.training.latents import ReadsLatents, check_items, noised_latents
from pretzel.training.loss import Loss
from pretzel.training.micro_batches import in_parts, scored_in_parts
from pretzel.training.optimizer import MuonAdamW
from pretzel.training.schedule import Schedule, with_schedule
from pretzel.training.sharded_module import ShardedModule
from pretzel.training.text_states import TextStates
from pretzel.training.trainable import checked_scales, scaled_groups, train_only
from pretzel.training.world_check import WorldCheck
from pretzel.typing import Float, Tensor


class PretzelModule(ShardedModule):
    """Trains a :class:`.GenerativeModel` with L = w L_NF + lambda L_NTP.

    :class:`pretzel.training.Loss` is a mean over the global batch of an optimizer step, so that it
    does not depend on how rows are dealt out to processes or micro-batches. A denoiser that is
    trained adds its own loss, whose gradient stays within it: the flow trains as it would without
    one.

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
        micro_batch_size: Documents of a batch that are run at a time; None for all. A step keeps
            the activations of a micro-batch, and its gradient is that of the batch; it takes one
            more forward pass.

    Raises:
        UserError: If a weight is negative, or both losses are off; if ``micro_batch_size`` is below
            1; if guidance cannot mix the model's transforms; if a name in ``learning_rate_scales``
            or ``trains`` begins none of the trainable parameters and does not end in ``?``, or
            nothing trains; if L_NF is off and the model has no image-to-text; if ``weights`` cannot
            be read, are those of another architecture, or were trained around other frozen parts;
            if ``text_states`` would not do; when it is to be fitted, if the Trainer accumulates
            batches, or a skip does not train although it is on from the start and no stage before
            has trained it.
    """

    instead_of_accumulation: ClassVar[str] = (
        "set data.init_args.batch_size to the documents of a whole step, and "
        "model.init_args.micro_batch_size to those that fit into memory"
    )

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
        micro_batch_size: int | None = None,
    ) -> None:
        if micro_batch_size is not None:
            check_sizes(micro_batch_size=micro_batch_size)
        loss = Loss(
            flow_weight=flow_weight,
            text_weight=text_weight,
            latent_norm_penalty=latent_norm_penalty,
        )
        loss.check(pretzel)
        check_guided(pretzel, guidance)
        super().__init__(pretzel, denoiser, sampler)
        self.loss = loss
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.micro_batch_size = micro_batch_size
        self.guidance = guidance
        self._last_sampling: dict[str, Any] = {}
        self._world_check: WorldCheck | None = None  # while the first batches of a fit are run
        self._text_is_alone = False  # whether the loss depends on nothing of the deep stream
        self.seed = seed
        # of all parameters, whether or not they train in this stage
        self.learning_rate_scales = checked_scales(learning_rate_scales or {}, self._trainable())
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

    def example_forward(self) -> None:
        """Run the model on one made-up sample, so that its cost can be counted without memory."""
        run_example(self.pretzel, has_images=bool(self.loss.flow_weight))

    def counted_samples(self, data: object) -> Mapping[str, float]:
        """Return the mean numbers of images and answers that a step of one process counts."""
        return counted_samples(data, self.pretzel, self.loss)

    def check_data(self, data: object) -> None:
        """Refuse data whose items are of another size than the latent space takes.

        Raises:
            UserError: Naming both.
        """
        check_items(data, self.pretzel.latent)

    def metric_names(self) -> set[str]:
        """Return the names of the loss and its parts; what is evaluated callbacks log."""
        parts = {"train/loss", "train/nll_flow"}
        parts |= {"train/nll_text"} if self.can_answer else set()
        return parts | ({"train/denoise"} if self._trained_denoiser() is not None else set())

    # Training

    def training_step(self, batch: DocumentBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        noise = self.pretzel.noise(batch.num_images, self.seed, "noise", self.global_rank, number)
        size = self.micro_batch_size
        x = noised_latents(self.pretzel, batch, noise, size)
        sigma = self.pretzel.latent.noise
        if number == 0:  # not where a fit is resumed
            self._world_check = WorldCheck(self.pretzel)
        if self._world_check is not None:
            self._world_check = self._world_check.after(batch.documents, x - sigma * noise)
        output = scored_in_parts(self._score, size, batch.documents, x)
        loss, parts = self.loss(output, self.pretzel.latent.dims, self.global_mean)
        if not self.loss.reaches_all(output, self.pretzel):
            loss = self.touching_all(loss)
        denoiser = self._trained_denoiser()
        if denoiser is not None:
            error, num_images = self.global_mean(
                in_parts(partial(denoiser.loss, sigma=sigma), size, x, x - sigma * noise)
                if len(x)
                else x.new_zeros(0)
            )
            loss = loss + error
            if num_images:
                parts["denoise"] = error
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch), sync_dist=True)
        for name, value in parts.items():
            self.log(f"train/{name}", value.detach(), batch_size=len(batch), sync_dist=True)
        return loss

    def _score(self, documents: Sequence[Document], x: Float[Tensor, "m n d"]) -> Scores:
        """Score what the loss and its gradients depend on."""
        if self._text_is_alone:
            assert isinstance(self.pretzel, Pretzel)
            return self.taking_part(self.pretzel.score_text, documents, x)
        states = self.text_states
        with states.serving(self.pretzel) if states is not None else contextlib.nullcontext():
            return self.taking_part(self.pretzel.score, documents, x)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over trainable parameters, with the schedule stepped each step."""
        groups = scaled_groups(self._trainable(), self.learning_rate_scales)
        optimizer = self.optimizer_factory(groups)
        if self.is_sharded and isinstance(optimizer, MuonAdamW):
            raise UserError(
                "optimizer must be one that moves each weight by itself under "
                "ModelParallelStrategy, such as torch.optim.AdamW, got MuonAdamW: it needs whole "
                "matrices"
            )
        for group in optimizer.param_groups:  # MuonAdamW makes two of one
            group["lr"] *= group["lr_scale"]
        return with_schedule(optimizer, self.schedule, self.trainer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients, the denoiser's apart: its norm must not change how the flow moves."""
        denoiser = self.denoiser if gradient_clip_algorithm in (None, "norm") else None
        if not gradient_clip_val or not isinstance(denoiser, nn.Module):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
            return
        parameters = list(denoiser.parameters())
        nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
        # Lightning clips by the norm over all gradients: these are taken away while it does
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    # Evaluation, for the callbacks

    def validation_step(
        self, batch: DocumentBatch, batch_idx: int
    ) -> Mapping[str, ImageLikelihood]:
        """Return the exact likelihood of the batch, which the callbacks report."""
        return {"likelihood": self.log_prob(batch)}

    test_step = validation_step

    def predict_step(self, batch: DocumentBatch, batch_idx: int) -> Float[Tensor, "b ..."]:
        """Return the last image of each document, generated behind all that stands before it.

        Where that is text alone, it is what :meth:`sample` makes of it.
        """
        images, given = iter(batch.images), []
        for document in batch.documents:
            own = list(islice(images, document.num_images))
            given.append(torch.stack(own[:-1]) if own[1:] else batch.images[:0])
        key = ("predict", batch_idx, self.global_rank)
        return self.sample_documents(batch.documents, given, stream_key=key)

    @property
    def medium(self) -> Medium:
        """Kind and size of what it generates."""
        return self.pretzel.latent.medium

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
    ) -> Float[Tensor, "n ..."]:
        """Generate one image for each prompt, in [-1, 1].

        The key names the noise: equal ones give all arms of a seed the same noise.
        """
        documents = [caption_document(prompt, key=prompt) for prompt in prompts]
        none = [torch.zeros(0, *self.medium.shape)] * len(documents)
        return self.sample_documents(documents, none, stream_key=stream_key)

    def sample_documents(
        self,
        documents: Sequence[Document],
        given: Sequence[Float[Tensor, "m ..."]],
        *,
        stream_key: Sequence[int | str],
    ) -> Float[Tensor, "n ..."]:
        """Generate the last image of each document behind the texts and images before it.

        Args:
            documents: The documents, such as edits: image, instruction, image.
            given: The images of each before its last, in [-1, 1].
            stream_key: Names the noise, as of :meth:`sample`.

        Raises:
            UserError: If the model does not model images behind others, where there are some.
        """
        noise = self.pretzel.noise(len(documents), self.seed, "sample", *stream_key)
        return self._images(documents, given, noise, self.seed)

    def _images(
        self,
        documents: Sequence[Document],
        given: Sequence[Float[Tensor, "m ..."]],
        noise: Float[Tensor, "n p d"],
        seed: int,
    ) -> Float[Tensor, "n ..."]:
        self.check_denoiser()
        generated = last_images(self, documents, given, noise, seed=seed)
        self._last_sampling = sampling_record(self.sampler, self.guidance, self.denoiser)
        self._last_sampling |= work_record(generated.work)
        folder = getattr(self.logger, "log_dir", None) if self._trainer is not None else None
        if folder is not None and self.trainer.is_global_zero:
            write_json(Path(folder) / "sampling.json", self._last_sampling)
        return generated.pixels

    @property
    def sampling_record(self) -> dict[str, Any]:
        """How the last images were sampled, in plain types; empty before the first."""
        return self._last_sampling

    def generate(
        self,
        prompts: Sequence[str],
        keys: Sequence[str],
        *,
        seed: int,
        given: Float[Tensor, "n ..."] | None = None,
    ) -> Float[Tensor, "n ..."]:
        """Generate one image for each prompt, in [-1, 1], whatever the batch it is part of.

        The noise of an image belongs to its key and the seed.

        Args:
            prompts: Captions, or instructions where images are given.
            keys: Names of the images.
            seed: Seed of the noise.
            given: An image before each prompt, in [-1, 1], which is to be edited.

        Raises:
            UserError: If images are given and the model does not model one behind another.
        """
        noise = self.pretzel.sample_noise(keys, seed, "draw")
        before: tuple[Image, ...] = () if given is None else (Image(),)
        documents = [
            Document(key=key, segments=(*before, Text(content=prompt), Image()))
            for key, prompt in zip(keys, prompts, strict=True)
        ]
        shown = noise.new_zeros(len(keys), 0, *self.medium.shape)
        shown = shown if given is None else given[:, None]
        return self._images(documents, list(shown), noise, seed)

    def answer(
        self, images: Float[Tensor, "n ..."], questions: Sequence[str], keys: Sequence[str]
    ) -> list[str]:
        """Answer one question about each image in [-1, 1], greedily.

        Questions with the same key are about the same image, which is read only once; its noise
        belongs to the key.

        Raises:
            UserError: If the model has no image-to-text.
        """
        return answer_by_key(self._answering_model, images, questions, keys, seed=self.seed)

    def describe(
        self,
        images: Float[Tensor, "n ..."],
        keys: Sequence[str],
        *,
        request: str = "",
        max_tokens: int = 32,
    ) -> list[str]:
        """Describe each image in [-1, 1], greedily, behind a request that may be empty.

        The noise of an image belongs to its key; a description is cut after ``max_tokens``.

        Raises:
            UserError: If the model has no image-to-text.
        """
        requests = [request] * len(keys)
        model = self._answering_model
        return answer_by_key(model, images, requests, keys, seed=self.seed, max_tokens=max_tokens)

    def choice_log_probs(
        self,
        images: Float[Tensor, "n ..."],
        questions: Sequence[str],
        keys: Sequence[str],
        choices: Sequence[str],
        *,
        per_token: bool = False,
    ) -> Float[Tensor, "n c"]:
        """Return the log-probability of each choice as the answer to each question, in nats.

        It is the sum over its tokens and end-of-text, or their mean; images are read as by
        :meth:`answer`.

        Raises:
            UserError: If the model has no image-to-text, or a choice has no token.
        """
        model = self._answering_model
        latents = keyed_latents(model, images, keys, seed=self.seed)
        return choice_log_probs(model, *latents, questions, choices, per_token=per_token)

    @property
    def _answering_model(self) -> Pretzel:
        if not isinstance(self.pretzel, Pretzel):
            raise UserError(
                f"pretzel must be a model that answers questions, got {type(self.pretzel).__name__}"
            )
        return self.pretzel

    def encodings(
        self, images: Float[Tensor, "m ..."]
    ) -> Mapping[str, Float[Tensor, "m n c"] | None]:
        """Return encodings of images in [-1, 1]: see :func:`.image_encodings`.

        The noise of an image belongs to its content.
        """
        return image_encodings(self.pretzel, images, self._content_noise(images))

    def reconstruct(self, images: Float[Tensor, "m ..."]) -> Float[Tensor, "m ..."]:
        """Return images decoded from their noised latents, without a denoiser.

        So the samples of a perfect flow would look.
        """
        with torch.no_grad():
            x = self.pretzel.encode(images, self._content_noise(images))
            return self.pretzel.latent.decode(x)

    def text_embeddings(self, texts: Sequence[str]) -> Float[Tensor, "k h"] | None:
        """Return the mean of the VLM's embeddings of each text's tokens; None without a VLM."""
        model = self.pretzel
        return mean_embeddings(model, texts) if isinstance(model, Pretzel) else None

    def _content_noise(self, images: Float[Tensor, "m ..."]) -> Float[Tensor, "m n d"]:
        dtype = self.pretzel.latent.medium.dtype
        keys = [content_key(image, dtype) for image in images]
        return self.pretzel.sample_noise(keys, self.seed, "evaluation")

    def setup(self, stage: str) -> None:
        """Refuse data of other items than the latent space takes; have their latents read.

        Those are latents that were computed beforehand, if there are any.
        """
        super().setup(stage)
        data = getattr(self._trainer, "datamodule", None)
        self.check_data(data)
        if stage != "fit" or not isinstance(data, ReadsLatents):
            return
        if found := data.read_latents(self.pretzel.latent):
            rank_zero_info(found)

    def on_fit_start(self) -> None:
        """Find text states."""
        super().on_fit_start()
        if self.text_states is not None:
            self.text_states.start(self.pretzel)

    def on_train_start(self) -> None:
        """Refuse skips that are on and untrained; see what need not run."""
        # Not earlier: where weights are dealt out, a checkpoint is read behind on_fit_start
        self._check_off()
        self._text_is_alone = not self.loss.flow_weight and self._flow_is_shut_out()

    def on_fit_end(self) -> None:
        """Keep the text states that are new."""
        states = self.text_states
        if states is not None:
            states.finish()
            rank_zero_info(
                f"text states of the VLM: {states.num_read} read, {states.num_computed} computed"
            )
