"""Pictures that stand in a table in base64."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.reading.archive import JSON_SUFFIX, MEDIA_SUFFIXES, check_size
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Skipped, Unusable


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPicture:
    """A sample whose picture is given in base64.

    What is decoded goes the way of a picture's file: the same closed list of formats, the same
    limits. What in it is no base64 makes the sample one that is skipped.

    Attributes:
        key: Key of the sample.
        fields: Its ``key.json``.
        encoded: The picture; None leaves it out.
    """

    key: str
    fields: bytes
    encoded: str | None

    def read(self, shard: str, root: Path) -> RawSample | Skipped:
        """Return the bytes of the sample, or why there are none."""
        members = {JSON_SUFFIX: self.fields}
        if self.encoded is not None:
            try:
                check_size(len(self.encoded) * 3 // 4)
                members[MEDIA_SUFFIXES[0]] = base64.b64decode(self.encoded, validate=True)
            except Unusable as fault:
                return fault.skipped(shard, self.key)
            except (binascii.Error, ValueError) as error:
                return Unusable("damaged", f"no base64: {error}").skipped(shard, self.key)
        return RawSample(shard=shard, key=self.key, members=members)

    def texts(self) -> "EncodedPicture":
        """Return the sample without its picture."""
        return replace(self, encoded=None)

    def identity(self, root: Path) -> str:
        """Return key, texts and the hash of the picture."""
        digest = hashlib.sha256((self.encoded or "").encode()).hexdigest()
        return f"{self.key} {self.fields.decode()} {digest}"
