"""The datamodule: reads shards and delivers batches of documents, equal ones for equal seeds."""

from typing import Any, final

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.checks import check_at_least, check_probabilities
from datamodules.decoding.crops import CentreCrop, Crop
from datamodules.decoding.decoder import MAX_CHARACTERS
from datamodules.decoding.flips import Flip
from datamodules.decoding.media import FileDecoder, MediaDecoder
from datamodules.decoding.picture import PictureDecoder
from datamodules.recipes.recipe import Recipe
from datamodules.sample import Skipped
from datamodules.sample_access import SampleAccess
from datamodules.sources.source import DataSource, Split
from datamodules.streams.decoded_parts import DecodedParts
from datamodules.streams.eval_stream import EvalStream
from datamodules.streams.loader import EvalLoader, TrainLoader
from datamodules.streams.order import Order
from datamodules.streams.part_log import PartLog
from datamodules.streams.progress import Progress, continued, merged
from datamodules.streams.run_view import RunView
from datamodules.streams.skip_log import SkipLog
from datamodules.streams.train_stream import TrainStream
from pretzel.errors import UserError
from pretzel.latent.base import LatentSpace
from pretzel.media.base import Medium
from pretzel.media.rgb import rgb_colour
from pretzel.runs.exact_resume import gathered


@final
class WebDatasetDataModule(SampleAccess):
    """Streams image-text documents from WebDataset shards.

    Training draws shards and samples at random, reproducibly for a seed and differently in every
    epoch; an epoch is ``steps_per_epoch`` batches in every process. Validation, test and
    prediction read each sample once, in order, as ``caption, image``, or as the interleaved
    document that it is. The order of the training data depends on ``seed``, ``shuffle_buffer``, the
    shards, and ``batch_size`` times the number of processes, and on nothing else: one process and
    eight, without workers and with many, see the same batches of one global size. A resumed fit
    continues with the documents of the uninterrupted one, in other numbers of both too.

    Args:
        source: DataSource of the samples.
        recipe: Turns training samples into documents; null for a :class:`datamodules.Blend`, whose
            parts have recipes of their own.
        image_size: Height and width of images in pixels; null where ``medium`` is given.
        batch_size: Documents in a batch of one process.
        steps_per_epoch: Batches of an epoch in every process.
        num_workers: Worker processes; 0 reads in the main process. At most one for each document of
            a training batch is used.
        seed: Seed of all random choices of the data.
        shuffle_buffer: Samples that are shuffled with one another, in all processes together.
        eval_batch_size: Documents in a batch of validation, test and prediction; ``batch_size`` if
            not given.
        num_val_samples: Number of validation samples over all processes; all if not given. A
            Blend shares them out evenly among its parts.
        upscale: Whether images smaller than ``image_size`` are enlarged; otherwise they are
            skipped.
        crop: Makes a square of an image; :class:`CentreCrop` if not given. What is random in it
            belongs to the seed, the epoch and the sample, and is left out of evaluation.
        flip: Mirrors or turns training images by chance, if given.
        background: Colour behind transparent pixels: a name of CSS, or ``#rrggbb``.
        max_characters: Most characters of a caption, of a question, of an answer, or of all texts
            of an interleaved document; a sample with more is skipped.
        medium: Kind and size of videos or sounds, in the place of images of ``image_size``, whose
            crop, flip, background and enlarging they do without.
        max_skipped: Share of samples, among the last 1,000 that were looked at, that may be skipped
            because they are damaged or lack what is needed; a larger one stops the run.

    Raises:
        UserError: If a number is out of its range, there is no such colour, or not one of
            ``image_size`` and ``medium`` is given.
    """

    def __init__(
        self,
        source: DataSource,
        recipe: Recipe | None,
        image_size: int | None,
        batch_size: int,
        steps_per_epoch: int,
        num_workers: int = 0,
        seed: int = 0,
        shuffle_buffer: int = 2000,
        eval_batch_size: int | None = None,
        num_val_samples: int | None = None,
        upscale: bool = False,
        max_skipped: float = 0.05,
        crop: Crop | None = None,
        flip: Flip | None = None,
        background: str = "white",
        max_characters: int = MAX_CHARACTERS,
        medium: Medium | None = None,
    ) -> None:
        super().__init__()
        eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        check_at_least(
            1,
            image_size=image_size,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            shuffle_buffer=shuffle_buffer,
            eval_batch_size=eval_batch_size,
            num_val_samples=num_val_samples,
            max_characters=max_characters,
        )
        check_at_least(0, num_workers=num_workers)
        check_probabilities(max_skipped=max_skipped)
        self.source = source
        self.recipe = recipe
        self.image_size = image_size
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.num_workers = num_workers
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer
        self.eval_batch_size = eval_batch_size
        self.num_val_samples = num_val_samples
        if (image_size is None) == (medium is None):
            raise UserError(
                "image_size (of pictures) or medium (of anything else) must be given, the other "
                f"null: got image_size={image_size} and medium={medium}"
            )
        media: MediaDecoder
        if medium is not None:
            _check_no_pictures(crop=crop, flip=flip, upscale=upscale)
            media = FileDecoder(read_as=medium)
        elif image_size is not None:
            media = PictureDecoder(
                image_size=image_size,
                upscale=upscale,
                crop=crop or CentreCrop(),
                flip=flip,
                background=rgb_colour(background),
            )
        self.medium = media.medium
        parts = source.parts(recipe)
        decoders = tuple(part.source.decoder(media, max_characters) for part in parts)
        self.parts = DecodedParts(parts=parts, decoders=decoders)
        self._training_parts = self.parts
        self._log = SkipLog(max_skipped)
        self._restored: dict[str, Any] | None = None
        self._progress: Progress | None = None
        self._loader: TrainLoader | None = None

    @property
    def skipped_samples(self) -> tuple[Skipped, ...]:
        """The samples that were skipped so far, at most the first thousand."""
        return self._log.samples

    def setup(self, stage: str) -> None:
        """Check before training that shards exist and that their first samples can be used.

        Raises:
            UserError: If a shard is missing, or none of the first hundred samples of a split can
                serve, for example because they have no caption or are smaller than ``image_size``.
        """
        if self.trainer is not None:
            self._log.follow(self.trainer)
        if stage == "fit":
            self.parts.check("train")
        self.parts.check("test" if stage in ("test", "predict") else "val")

    def train_dataloader(self) -> TrainLoader:
        """Return the loader of training batches, one epoch for each iteration."""
        if self._progress is None:
            self._progress = self._continued()
        stream = self._train_stream(self._progress.start)
        if stream.num_parts < self.num_workers:
            rank_zero_warn(
                f"num_workers={self.num_workers} is capped at {stream.num_parts}: as many lanes "
                f"make a batch of {self.batch_size} documents"
            )
        run = self._run
        part_log = None
        if run.trainer is not None and len(self.parts) > 1:
            part_log = PartLog(run.trainer, self.parts.parts, stream.order)
        self._loader = TrainLoader(
            stream,
            run.steps(self.steps_per_epoch),
            self._log,
            self._progress,
            repeats=run.repeats_batches,
            part_log=part_log,
            consumed=(lambda: run.consumed_batches) if run.is_training else None,
        )
        return self._loader

    def read_latents(self, latent: LatentSpace) -> str:
        """Read the latents of a space in the place of training pictures, where they were computed.

        Returns:
            How many shards have latents, in words; nothing if none has.
        """
        self._training_parts, words = self.parts.with_latents(latent)
        return words

    def val_dataloader(self) -> EvalLoader | list[EvalLoader]:
        """Return the loader of validation batches; an empty list if there is no such split."""
        return self._eval_loader("val", self.num_val_samples)

    def test_dataloader(self) -> EvalLoader | list[EvalLoader]:
        """Return the loader of test batches; an empty list if there is no such split."""
        return self._eval_loader("test", None)

    def predict_dataloader(self) -> EvalLoader | list[EvalLoader]:
        """Return the loader of test batches, whose captions are the prompts."""
        return self._eval_loader("test", None)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the training data, of all processes: all of them call this together.

        It is that behind the batches which training has consumed, and what the order of the data
        depends on.
        """
        progress, run = self._progress or self._continued(), self._run
        consumed = run.consumed_batches if run.is_training else progress.last
        states = gathered(run.trainer, progress.state(consumed))
        return {"order": self._order().settings(self.parts.parts), **merged(states)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a place, once training data is asked for."""
        self._restored, self._progress = state_dict, None

    def teardown(self, stage: str) -> None:
        """End the workers; warn about the samples that were skipped, if any."""
        if self._loader is not None:
            self._loader.close()
        self._log.close()

    def on_exception(self, exception: BaseException) -> None:
        """End the workers where a run ends early, too, and warn about the skipped samples."""
        self.teardown("fit")

    @property
    def _run(self) -> RunView:
        return RunView(self.trainer)

    def _order(self, start: int = 0) -> Order:
        return Order(
            seed=self.seed,
            batch_size=self.batch_size * self._run.world_size,
            shuffle_buffer=self.shuffle_buffer,
            start=start,
        )

    def _continued(self) -> Progress:
        return continued(self._restored, self._order().settings(self.parts.parts))

    def _train_stream(self, start: int) -> TrainStream:
        return TrainStream(
            parts=self._training_parts.parts,
            decoders=self._training_parts.decoders,
            order=self._order(start),
            medium=self.medium,
            rank=self._run.rank,
            world_size=self._run.world_size,
            num_workers=self.num_workers,
        )

    def _eval_loader(self, split: Split, limit: int | None) -> EvalLoader | list[EvalLoader]:
        streams = tuple(
            EvalStream(
                source=part.source,
                decoder=decoder,
                split=split,
                batch_size=self.eval_batch_size,
                limit=share,
                rank=self._run.rank,
                world_size=self._run.world_size,
                part=part.name if len(self.parts) > 1 else None,
            )
            for part, decoder, share in self.parts.shares(split, limit)
        )
        if not streams:
            return []
        return EvalLoader(streams=streams, num_workers=self.num_workers, log=self._log)


def _check_no_pictures(**options: object) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise UserError(
            f"{', '.join(given)} must be left out where medium is given: of pictures alone"
        )
