"""How often a model's edits of scenes do what was asked, and leave all else as it was."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from jaxtyping import UInt8
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor
from typing_extensions import override

from callbacks.evaluation import Evaluation, check_counts
from callbacks.evaluation_documents import (
    DocumentGenerator,
    EvaluationDocument,
    evaluation_documents,
)
from callbacks.image_check import ImageCheck
from callbacks.image_results import small_pictures
from callbacks.protocols import Split, lacks
from callbacks.reporting import Stage, gather, local_batches, log_values, logged_names, show_sheet
from callbacks.sampling_facts import sampling_facts
from callbacks.scenes.edit_rules import EditJudge, EditVerdict
from datamodules.scenes.edits import EDIT_TYPES, EditedScene, read_truth
from datamodules.scenes.look import Look
from pretzel.errors import NothingToMeasure, UserError
from pretzel.generation.documents import require_edits
from pretzel.media.integers import arrays_to_floats, to_floats, to_integers
from pretzel.media.sheet import sheet
from pretzel.sequence.document import Document

PARTS = ("done", "kept", "copied", "distance")
NUM_SHOWN = 12
"""Edits on the sheet of pictures, three pictures each and two edits a row."""


@dataclass(frozen=True, kw_only=True)
class JudgedEdit:
    """An edit with its verdict."""

    scene: EditedScene
    is_held_out: bool
    verdict: EditVerdict


def edit_shares(judged: JudgedEdit) -> dict[str, float]:
    """Return what one edit counts as, by the metrics in which it counts."""
    groups = ["", f"_{judged.scene.edit.edit_type}", *["_held_out"] * judged.is_held_out]
    parts = {part: getattr(judged.verdict, part) for part in PARTS}
    return {
        f"edits/{part}{group}": float(value)
        for group in groups
        for part, value in parts.items()
        if value is not None
    }


def edit_values(judged: Sequence[JudgedEdit]) -> dict[str, float]:
    """Return the values of :class:`EditAccuracy`, names without the stage."""
    shares: dict[str, list[float]] = {}
    for one in judged:
        for name, share in edit_shares(one).items():
            shares.setdefault(name, []).append(share)
    means = {name: sum(own) / len(own) for name, own in shares.items()}
    return means | {f"{name}_n": float(len(own)) for name, own in shares.items()}


class EditAccuracy(Evaluation):
    """Let the model make the last edit of documents of :class:`datamodules.SceneEdits`.

    It is given the real images and instructions before, as in ``pretzel predict``, and generates
    with the module's guidance, sampler, denoiser and seed. Objects are found as for
    :class:`callbacks.SceneAccuracy`. Logs

    - ``<stage>/edits/done``: the share of images with what was asked for;
    - ``<stage>/edits/kept``: of those with other objects, the share in which all of these are where
      they were, and no more than there may be;
    - ``<stage>/edits/copied``: the share with the objects of the source;
    - ``<stage>/edits/distance``: the mean absolute difference of channels in [0, 1] from the
      source, outside of what is edited; the error of the latent space is part of it;

    each also by kind of edit (``..._colour``, ``_kind``, ``_add``, ``_remove``, ``_move``,
    ``_swap``, ``_undo``) and of edits that bring about what training never shows (``_held_out``),
    and the number of images of each (``..._n``). Source, edited and real image of the first are
    shown in TensorBoard, and written to ``<log_dir>/edits``. A model that sees no image before
    another one cannot edit: that is said, and nothing is logged. Batches are dealt out to ranks.

    Args:
        look: The look of the data.
        num_images: Edits, the first ones of the split; all where there are fewer.
        batch_size: Images generated at a time on each rank.
        every_n_validations: Measure at every n-th validation of a fit; tests always do.

    Raises:
        UserError: If a number is below 1, or the data has kinds or colours that the look lacks;
            before training.
    """

    def __init__(
        self,
        look: Look,
        num_images: int = 200,
        batch_size: int = 50,
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations)
        check_counts(self, num_images=num_images, batch_size=batch_size)
        self.look = look
        self.num_images = num_images
        self.batch_size = batch_size
        self.facts: dict[str, dict[str, Any]] = {}

    def metric_names(self) -> set[str]:
        """Return the names of what is judged, in all and by kind of edit, with their numbers."""
        groups = ("", *(f"_{one}" for one in (*EDIT_TYPES, "held_out")))
        names = [f"edits/{part}{group}" for part in PARTS for group in groups]
        return logged_names(*names, *(f"{name}_n" for name in names))

    @cached_property
    def _judge(self) -> EditJudge:
        return EditJudge(self.look)

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule, split: Split) -> None:
        module = _generator(pl_module)
        try:
            require_edits(module.pretzel)
        except UserError as error:
            raise NothingToMeasure(str(error)) from error
        first = next(self._documents(trainer, split), None)
        if first is None:
            raise NothingToMeasure(
                "EditAccuracy needs documents of datamodules.SceneEdits, but the "
                f"{split} samples have none"
            )

    def _documents(
        self, trainer: Trainer, split: Split
    ) -> Iterator[tuple[EvaluationDocument, EditedScene]]:
        """Yield the documents that end with an edit, and that edit."""
        for document in evaluation_documents(trainer, split, "EditAccuracy"):
            scene = read_truth(document.truth)
            if scene is not None:
                self._check_look(scene)
                yield document, scene

    def _check_look(self, scene: EditedScene) -> None:
        for one in (*scene.before, *scene.after):
            if one.kind not in self.look.kinds or one.colour not in (self.look.colours or {None}):
                raise UserError(
                    f"EditAccuracy: look must have all kinds and colours of the data, but has no "
                    f"{' '.join(filter(None, (one.colour, one.kind)))}"
                )

    @override
    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        module = _generator(pl_module)
        folder = trainer.log_dir  # asks all ranks
        documents = list(islice(self._documents(trainer, stage), self.num_images))
        rank_zero_info(f"EditAccuracy: {len(documents)} edits")
        made: dict[int, tuple[UInt8[Tensor, "n 3 height width"], int, list[JudgedEdit]]] = {}
        starts = range(0, len(documents), self.batch_size)
        for (start,) in local_batches(trainer, starts, 1):
            batch = documents[start : start + self.batch_size]
            made[start] = self._edit(module, batch, start // self.batch_size)
        ranks = gather(trainer, made)
        batches = [batch for _, batch in sorted(item for own in ranks for item in own.items())]
        check = ImageCheck(f"EditAccuracy: at step {trainer.global_step}", "edits")
        for pixels, not_finite, _ in batches:
            check.take_in(to_floats([pixels]), not_finite)
        check.end()
        judged = [one for _, _, verdicts in batches for one in verdicts]
        images = [image for pixels, _, _ in batches for image in to_floats([pixels])]
        values = edit_values(judged)
        look = {"look": type(self.look).__name__, "kinds": len(self.look.kinds)}
        facts = {"n": len(judged), **look, **sampling_facts(trainer, module)}
        self.facts |= {f"{stage}/{name}": facts for name in values if not name.endswith("_n")}
        if stage == "test":
            pictures = [next(small_pictures(module.medium, image[None])) for image in images]
            self.sample_results = [
                {
                    "item": document.key,
                    "values": {f"test/{name}": x for name, x in edit_shares(one).items()},
                    "texts": {"instruction": scene.edit.instruction},
                    "picture": picture,
                }
                for (document, scene), one, picture in zip(documents, judged, pictures, strict=True)
            ]
        log_values(pl_module, stage, values)
        self._show(trainer, folder, stage, documents, images, judged)

    def _edit(
        self,
        module: DocumentGenerator,
        batch: Sequence[tuple[EvaluationDocument, EditedScene]],
        number: int,
    ) -> tuple[UInt8[Tensor, "n 3 height width"], int, list[JudgedEdit]]:
        """Return edited images as they would be saved, how many are not finite, and verdicts."""
        given = [arrays_to_floats(one.images[:-1]).to(module.device) for one, _ in batch]
        documents = [Document(key=one.key, segments=tuple(one.segments)) for one, _ in batch]
        generated = module.sample_documents(documents, given, stream_key=("edits", number))
        not_finite = int((~generated.isfinite().flatten(1).all(dim=1)).sum())
        pixels = to_integers(generated).cpu()
        judged = [
            JudgedEdit(
                scene=scene,
                is_held_out=bool(document.truth.get("held_out")),
                verdict=self._judge(image.numpy(), before[-1].cpu().numpy(), scene),
            )
            for image, before, (document, scene) in zip(
                to_floats([pixels]), given, batch, strict=True
            )
        ]
        return pixels, not_finite, judged

    def _show(
        self,
        trainer: Trainer,
        folder: str | None,
        stage: Stage,
        documents: Sequence[tuple[EvaluationDocument, EditedScene]],
        images: Sequence[Tensor],
        judged: Sequence[JudgedEdit],
    ) -> None:
        """Show source, edited and real image of the first edits, with instruction and verdict."""
        shown: list[Tensor] = []
        labels: list[str] = []
        for (document, scene), image, one in zip(
            documents[:NUM_SHOWN], images, judged, strict=False
        ):
            source, real = arrays_to_floats(document.images[-2:])
            shown += [source, image, real]
            verdict = [part for part in PARTS[:3] if getattr(one.verdict, part)]
            labels += [scene.edit.instruction, ", ".join(verdict) or "neither", "real"]
        pictures = [
            Image.fromarray(one.permute(1, 2, 0).numpy()) for one in to_integers(torch.stack(shown))
        ]
        show_sheet(trainer, folder, stage, "edits", sheet(pictures, labels, columns=6))


def _generator(module: LightningModule) -> DocumentGenerator:
    if not isinstance(module, DocumentGenerator):
        raise lacks("EditAccuracy", "a module with sample_documents(documents, given)", module)
    return module
