"""The parts of the data, each with the decoder of its samples."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from datamodules.decoding.decoder import SampleDecoder
from datamodules.decoding.media import MediaDecoder
from datamodules.features.latent_files import DTYPES, LatentFiles, latent_folder, latent_root
from datamodules.reading.opening import is_pipe
from datamodules.sources.source import DataSource, Part, Split
from datamodules.streams.first_samples import check_first_samples
from pretzel.latent.base import LatentSpace


@dataclass(frozen=True, kw_only=True)
class DecodedParts:
    """Parts of the data with their decoders, one for each.

    Attributes:
        parts: One source, or those of a Blend, with recipe and weight.
        decoders: How the samples of each are decoded.
    """

    parts: tuple[Part, ...]
    decoders: tuple[SampleDecoder, ...]

    def __iter__(self) -> Iterator[tuple[Part, SampleDecoder]]:
        return zip(self.parts, self.decoders, strict=True)

    def __len__(self) -> int:
        return len(self.parts)

    def check(self, split: Split) -> None:
        """Check that some of the first hundred samples of each part can serve.

        Raises:
            UserError: If a shard is missing, or none can.
        """
        for part, decoder in self:
            recipe = part.recipe if split == "train" else None
            check_first_samples(part.source, decoder, split, recipe)

    def shares(
        self, split: Split, limit: int | None
    ) -> list[tuple[Part, SampleDecoder, int | None]]:
        """Return the parts that have a split, each with its share of a number of samples."""
        parts = [(p, d) for p, d in self if p.source.shards(split)]
        if limit is None:
            return [(part, decoder, None) for part, decoder in parts]
        return [
            (part, decoder, len(range(place, limit, len(parts))))
            for place, (part, decoder) in enumerate(parts[:limit])
        ]

    @property
    def picture_decoders(self) -> tuple[tuple[DataSource, MediaDecoder], ...]:
        """The source of each part, and how its pictures are decoded."""
        return tuple((part.source, decoder.media) for part, decoder in self)

    @property
    def has_random_pictures(self) -> bool:
        """Whether training pictures are cropped or flipped by chance."""
        return any(pictures.is_random for _, pictures in self.picture_decoders)

    def latent_files(
        self, encoder: str, dtype: str, *, to_write: bool = False
    ) -> tuple[LatentFiles, ...]:
        """Return where the latents of the training pictures of each part are, or are to be.

        Args:
            encoder: Identity of the latent space.
            dtype: Type of the numbers.
            to_write: Whether there may be none yet.
        """
        files = []
        for source, pictures in self.picture_decoders:
            # what a command gives is not known before it is run
            shards = tuple(s for s in source.shards("train") if not is_pipe(s))
            about = {"encoder": encoder, "pictures": pictures.identity, "dtype": dtype}
            folder = latent_folder(about)
            # contents of many shards take long to hash: not where there are no latents at all
            is_used = to_write or folder.is_dir()
            identities = source.identities(shards) if is_used else shards
            files.append(LatentFiles.of(folder, shards, identities))
        return tuple(files)

    def with_latents(self, latent: LatentSpace) -> tuple["DecodedParts", str]:
        """Return the parts for training: latents of a space are read in the place of pictures.

        Pictures that are random, and those whose shard has no latents, are decoded as ever. What
        is evaluated needs pictures, also where it lies in a shard of the training data.

        Returns:
            The parts, and how many shards have latents, in words; nothing if none has.
        """
        if self.has_random_pictures or not latent_root().is_dir():
            return self, ""
        for dtype in DTYPES:
            files = self.latent_files(latent.identity, dtype)
            total = sum(len(of_part.names) for of_part in files)
            found = total - sum(len(of_part.missing) for of_part in files)
            if found:
                pairs = zip(self.decoders, files, strict=True)
                decoders = tuple(replace(decoder, latents=latents) for decoder, latents in pairs)
                words = f"latents of {found} of {total} training shards are read ({dtype})"
                return replace(self, decoders=decoders), words
        return self, ""
