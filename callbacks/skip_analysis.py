"""Size and direction of what each skip adds to the stream it enters (arXiv 2605.08029)."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from callbacks.analysis_helpers import analysed_model, before_text, question_batches, run_hooked
from callbacks.evaluation import BatchEvaluation, Evaluation, check_counts
from callbacks.protocols import HasEvaluationSamples, Split, datamodule_of
from callbacks.reporting import Stage, digest, gather, means
from pretzel.errors import UserError
from pretzel.flow.precision import at_least_float32
from pretzel.interleave.skips import SkipConnection
from pretzel.model import Pretzel
from pretzel.sequence.document import DocumentBatch
from pretzel.sequence.packed_batch import PackedBatch

_COLUMNS = ("ratio", "alignment")
_KINDS = ("image", "text", "answer", "all")
_Kinds = Mapping[str, Bool[Tensor, "b l"]]


class SkipAnalysis(BatchEvaluation, Evaluation):
    r"""Measure contribution ratio and directional alignment of every skip of the interleaving.

    For a skip that adds a = W s to a target t, means over positions of

    - ``analysis/<skip>/<kind>_ratio``: the contribution ratio ``||a|| / ||t||``;
    - ``analysis/<skip>/<kind>_alignment``: the directional alignment ``cos(a, t)``.

    A skip is named as in the interleaving: ``deep_skip``, or with its layer where there is one for
    each. Kinds of positions are ``image``, ``text``, and ``answer``: those of text that a
    supervised token follows. (``all`` where a skip is given a part of the sequence only.) Of a
    skip that is open at some positions only those count; padding never does. A position where the
    target is zero has no ratio, one where either is zero no alignment: a skip that adds nothing
    has ratio 0 and no alignment. In ``test`` the names begin with ``test/``.

    Hooks that live until the interleaving has returned measure what the evaluation step itself
    runs; training steps have none. Evaluation batches of captions hold no answers:
    images with questions from the datamodule are run as well, for ``answer`` alone.

    Args:
        every_n_validations: Analyse every n-th validation of a fit.
        num_samples: Samples whose questions are read, over all processes; 0 for none (as under a
            strategy where the model only runs within a step).
        batch_size: Samples run at a time.

    Raises:
        UserError: If a number is out of range, or the module has no model.
    """

    def __init__(
        self, every_n_validations: int = 1, num_samples: int = 100, batch_size: int = 25
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, batch_size=batch_size)
        if num_samples < 0:
            raise UserError(f"SkipAnalysis: num_samples must be 0 or positive, got {num_samples}")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self._model: Pretzel | None = None
        self._handles: list[RemovableHandle] = []
        # Sums over positions of a batch, left on the device until the end of the evaluation.
        self._sums: dict[str, list[Float[Tensor, "2 2"]]] = {}

    def metric_names(self) -> set[str]:
        """Return the names of ratios and alignments; ``*`` stands for the skip."""
        return {
            f"{prefix}analysis/*/{kind}_{column}"
            for prefix in ("", "test/")
            for kind in _KINDS
            for column in _COLUMNS
        }

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        model = analysed_model(pl_module, "SkipAnalysis")
        self._model = model if model is not None and skips(model.interleaving) else None
        if self._model is None:
            rank_zero_info("SkipAnalysis: not applicable, the model has no skips")

    def _watch(self, model: Pretzel, kinds: _Kinds) -> list[RemovableHandle]:
        return [
            skip.register_forward_pre_hook(
                lambda skip, args, kwargs, name=name: self._measure(
                    name, kinds, skip, *args, **kwargs
                ),
                with_kwargs=True,
            )
            for name, skip in skips(model.interleaving).items()
        ]

    def _measure(
        self,
        name: str,
        kinds: _Kinds,
        skip: SkipConnection,
        target: Float[Tensor, "b l t"],
        source: Float[Tensor, "b l s"],
        where: Bool[Tensor, "b l"] | None = None,
    ) -> None:
        # Some interleavings run a part of the sequence, whose positions are not the batch's
        if any(counted.shape != target.shape[:2] for counted in kinds.values()):
            kinds = {"all": target.new_ones(target.shape[:2], dtype=torch.bool)}
        with torch.no_grad():
            # Not output - target: in bfloat16 a small contribution is lost in the sum.
            added = skip.contribution(source)
            for kind, counted in kinds.items():
                chosen = counted if where is None else counted & where
                sums = self._sums.setdefault(f"{name}/{kind}", [])
                sums.append(position_sums(added, target, chosen))

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        model = self._model
        if model is None:
            return
        has_samples = isinstance(datamodule_of(trainer), HasEvaluationSamples)
        if self.num_samples and model.answers and has_samples:
            batches = question_batches(trainer, pl_module, stage, self.num_samples, self.batch_size)
            for batch in batches:
                kinds = {"answer": before_text(model, _packed(model, batch))}
                run_hooked(pl_module, batch, self._watch(model, kinds))
        own: dict[str, tuple[float, float]] = {}
        for key, sums in self._sums.items():
            totals = torch.stack(sums).cpu().double().sum(dim=0).tolist()
            for column, (total, count) in zip(_COLUMNS, totals, strict=True):
                own[f"{key}_{column}"] = total, count
        if stage == "test":
            self.sample_digest = digest(gather(trainer, own))
        self._sums = {}
        prefix = "" if stage == "val" else f"{stage}/"
        for name, (mean, _) in means(trainer, own).items():
            # The mean over ranks of equal values, as in log_values
            pl_module.log(f"{prefix}analysis/{name}", mean, batch_size=1, sync_dist=True)

    # The pass of the evaluation step

    @override
    def begin_epoch(self) -> None:
        self._sums = {}

    @override
    def begin_batch(self, trainer: Trainer, batch: object) -> None:
        self._unhook()
        model = self._model
        if model is None or trainer.sanity_checking:
            return
        assert isinstance(batch, DocumentBatch)
        packed = _packed(model, batch)
        kinds = {
            "image": packed.is_image & packed.is_valid,
            "text": ~packed.is_image & packed.is_valid,
            "answer": before_text(model, packed),
        }
        self._handles += self._watch(model, kinds)
        # The first pass only: other callbacks may run the model on this batch too.
        last = model.interleaving.register_forward_hook(lambda *_: self._unhook())
        self._handles.append(last)

    @override
    def end_batch(self, pl_module: LightningModule, outputs: object, batch: object) -> None:
        self._unhook()  # of a step that did not run the model

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._unhook()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._unhook()
        self._model = None


def skips(interleaving: nn.Module) -> dict[str, SkipConnection]:
    """Return the skips of an interleaving by name."""
    return {
        name: part
        for name, part in interleaving.named_modules()
        if isinstance(part, SkipConnection)
    }


def _packed(model: Pretzel, batch: DocumentBatch) -> PackedBatch:
    return model.pack(batch.documents).to(model.device)


def position_sums(
    added: Float[Tensor, "b l t"], target: Float[Tensor, "b l t"], chosen: Bool[Tensor, "b l"]
) -> Float[Tensor, "2 2"]:
    """Return sum and count over chosen positions of ``|added| / |target|``, then of cosines."""
    wide = at_least_float32(target)
    added, target = added.to(wide), target.to(wide)
    size, base = added.norm(dim=-1), target.norm(dim=-1)
    has_ratio = chosen & (base > 0)
    has_cosine = has_ratio & (size > 0)
    ratio = size / base
    cosine = ((added / size[..., None]) * (target / base[..., None])).sum(dim=-1)
    zero = ratio.new_zeros(())
    return torch.stack(
        [
            torch.stack([torch.where(has, value, zero).sum(), has.sum()])
            for value, has in ((ratio, has_ratio), (cosine, has_cosine))
        ]
    )
