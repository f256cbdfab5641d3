"""Divergence of the model's text predictions from those of its frozen language model."""

import math

import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from callbacks.analysis_helpers import analysed_model, before_text, question_batches, run_hooked
from callbacks.evaluation import Evaluation, check_counts
from callbacks.protocols import Split, require_questions
from callbacks.reporting import Stage, digest, gather, log_values, logged_names
from pretzel.interleave.base import Interleaving, StreamInputs, StreamOutputs
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.model import Pretzel
from pretzel.sequence.document import DocumentBatch
from pretzel.vlm.base import VLMStream

_CHUNK = 256
"""Positions whose logits are held at a time: a vocabulary may have 152,064 entries."""


class TextDrift(Evaluation):
    r"""Compare the model's next-token distributions with the frozen vision-language model's own.

    Both read the same sequences: images, questions and answers of the evaluation samples, image
    positions through the same adapter. The frozen model does so without skips from the flow: its
    logits are those of y_vlm in place of y_vlm + W_D y_D. Compared before every supervised token;
    rows of the language head for tokens that the vocabulary lacks belong to both. Logs

    - ``<stage>/text_drift``: mean ``KL(p_frozen || p_model)`` in nats a token, 0 at zero skips;
    - ``<stage>/text_perplexity``, and ``<stage>/text_perplexity_change``: the model's less the
      frozen model's;
    - ``<stage>/text_drift_n``: the number of tokens.

    Where the interleaving changes nothing inside the vision-language model, its states are taken
    from the model's own pass; otherwise it runs once more.

    Args:
        num_samples: Samples whose questions are read, over all processes; None for all.
        batch_size: Samples run at a time.
        every_n_validations: Compare at every n-th validation of a fit.

    Raises:
        UserError: If a number is below 1, or module or datamodule lack what is needed.
    """

    def __init__(
        self, num_samples: int | None = 100, batch_size: int = 25, every_n_validations: int = 1
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_samples=num_samples, batch_size=batch_size)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self._model: Pretzel | None = None

    def metric_names(self) -> set[str]:
        """Return the names of divergence, perplexities and the number of tokens."""
        return logged_names(
            "text_drift", "text_perplexity", "text_perplexity_change", "text_drift_n"
        )

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        self._model = None
        model = analysed_model(pl_module, "TextDrift")
        if (
            model is None
            or not model.answers
            or not isinstance(model.interleaving, VisionInterleaving)
        ):
            rank_zero_info(
                "TextDrift: not applicable, the model has no image-to-text direction through a "
                "frozen vision-language model that could be run without skips"
            )
            return
        require_questions(trainer, split, "TextDrift")
        self._model = model

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if self._model is None:
            return
        batches = question_batches(trainer, pl_module, stage, self.num_samples, self.batch_size)
        sums = [_compared(self._model, pl_module, batch) for batch in batches]
        own = torch.stack(sums).cpu().double().sum(dim=0).tolist() if sums else [0.0] * 4
        if stage == "test":
            self.sample_digest = digest(gather(trainer, [batch.tolist() for batch in sums]))
        parts = gather(trainer, own)
        kl, nll, frozen_nll, count = (math.fsum(values) for values in zip(*parts, strict=True))
        if not count:
            return
        perplexity, frozen = (
            float(torch.tensor(total / count, dtype=torch.float64).exp())
            for total in (nll, frozen_nll)
        )
        values = {
            "text_drift": kl / count,
            "text_perplexity": perplexity,
            "text_perplexity_change": perplexity - frozen,
            "text_drift_n": count,
        }
        log_values(pl_module, stage, values)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._model = None


def _compared(model: Pretzel, module: LightningModule, batch: DocumentBatch) -> Float[Tensor, " 4"]:
    """Run the model over a batch and return the sums of :func:`drift_sums`."""
    packed = model.pack(batch.documents).to(model.device)
    is_text = before_text(model, packed)
    own: list[Tensor] = []
    sums: list[Float[Tensor, " 4"]] = []

    def keep(
        vlm: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], y: Tensor
    ) -> None:
        # Only where nothing joined inside the VLM is this the frozen model's own state
        if (args[5] if len(args) > 5 else kwargs.get("after_layer")) is None:
            own.append(y)

    def compare(
        interleaving: nn.Module,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        out: StreamOutputs,
    ) -> None:
        inputs = args[0] if args else kwargs["inputs"]
        assert isinstance(interleaving, VisionInterleaving)
        assert isinstance(inputs, StreamInputs)
        assert out.text is not None
        with torch.no_grad():
            y = own[0] if own else interleaving.run_vlm(inputs, model.vlm, None)
            assert y is not None  # whole images: their vision input is in the inputs
            targets = packed.targets[is_text]
            sums.append(drift_sums(interleaving, model.vlm, y[is_text], out.text[is_text], targets))

    handles = [
        model.vlm.register_forward_hook(keep, with_kwargs=True),
        model.interleaving.register_forward_hook(compare, with_kwargs=True),
    ]
    run_hooked(module, batch, handles)
    return sums[0]


def drift_sums(
    interleaving: Interleaving,
    vlm: VLMStream,
    frozen: Float[Tensor, "k h"],
    moved: Float[Tensor, "k h"],
    targets: Int[Tensor, " k"],
) -> Float[Tensor, " 4"]:
    """Return sums over tokens: KL(frozen || moved), both negative log-likelihoods, and the count.

    Of the states before each token ``frozen`` are the frozen model's own, ``moved`` those that the
    language head reads in the model, whose likelihood comes first.
    """
    sums = torch.zeros(4, device=targets.device)
    parts = zip(*(torch.split(x, _CHUNK) for x in (frozen, moved, targets)), strict=True)
    for p_states, q_states, tokens in parts:
        log_p = interleaving.logits(p_states, vlm).float().log_softmax(dim=-1)
        log_q = interleaving.logits(q_states, vlm).float().log_softmax(dim=-1)
        # KL(p || q) = sum_v p(v) (log p(v) - log q(v))
        kl = (log_p.exp() * (log_p - log_q)).sum()
        nll = [-x.gather(-1, tokens[:, None]).sum() for x in (log_q, log_p)]
        sums += torch.stack([kl, *nll, kl.new_tensor(float(len(tokens)))])
    return sums
