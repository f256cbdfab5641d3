"""Documents with the pixels of their images."""

from dataclasses import dataclass, field

from datamodules.sample import ImageArray, InterleavedSample
from pretzel.sequence.document import Document, without_past


@dataclass(frozen=True, kw_only=True)
class Illustrated:
    """A document and its images, in order; dropped ones are left out."""

    document: Document
    pixels: tuple[ImageArray, ...] = field(repr=False, compare=False)

    def without_past(self, image: int) -> "Illustrated":
        """Return the document with everything before one of its images dropped."""
        document = without_past(self.document, image)
        return Illustrated(document=document, pixels=self.pixels[image:])


def as_written(sample: InterleavedSample) -> Illustrated:
    """Return an interleaved sample as the document that it is."""
    return Illustrated(
        document=Document(key=sample.key, segments=sample.segments), pixels=sample.images
    )
