"""Sound files: which formats are read, and how long they may be."""

import io
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Int16

from pretzel.errors import UserError
from pretzel.files.atomic import whole_file
from pretzel.files.medium_error import MediumError

SOUND_SUFFIXES = ("wav", "flac")
"""Ends of the names of sound files; what is in them decides how they are read."""

FORMATS = ("WAV", "WAVEX", "FLAC")
"""Formats that are decoded, by libsndfile's names: a closed list, as that of pictures."""

MAX_SAMPLES = 2**28
"""Samples of all channels beyond which a file is refused: they would fill the memory."""


def read_sound(
    file: bytes | str | Path, num_samples: int
) -> tuple[Int16[np.ndarray, "time channels"], int]:
    """Read the beginning of a sound file: samples of 16 bits, and how many a second.

    Args:
        file: Its path or its bytes. Floats in it are clipped to [-1, 1].
        num_samples: Samples of each channel that are read at most.

    Raises:
        MediumError: If the bytes are no sound (``damaged``), one of more than
            :data:`MAX_SAMPLES` (``too large``), or one with samples that are no finite numbers
            (``value range``).
        OSError: If there is no such file, or it cannot be opened.
        UserError: If soundfile is not installed.
    """
    soundfile = _soundfile()
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as opened:
            if opened.format not in FORMATS:
                raise MediumError("damaged", f"it is none of {', '.join(FORMATS)}")
            if opened.frames * opened.channels > MAX_SAMPLES:
                size = f"{opened.frames} samples of {opened.channels} channels"
                raise MediumError("too large", f"{size}, more than {MAX_SAMPLES} in all")
            if opened.subtype not in ("FLOAT", "DOUBLE"):
                return opened.read(num_samples, "int16", always_2d=True), opened.samplerate
            # libsndfile would take floats in [-1, 1] for integers, and make them silence
            floats = opened.read(num_samples, "float32", always_2d=True)
            if not np.isfinite(floats).all():
                raise MediumError("value range", "samples that are no finite numbers")
            integers = (floats.clip(-1, 1) * 32767).round().astype(np.int16)
            return integers, opened.samplerate
    except MediumError:
        raise
    except Exception as error:  # on hostile bytes the decoder raises exceptions of several types
        raise MediumError("damaged", " ".join(str(error).split())) from error


def write_wav(samples: Int16[np.ndarray, "time channels"], rate: int, path: Path) -> None:
    """Write samples of 16 bits as a WAV file, whole or not at all.

    Raises:
        OSError: If it cannot be written.
        UserError: If soundfile is not installed.
    """
    with whole_file(path) as partial:
        _soundfile().write(partial, samples, rate, subtype="PCM_16", format="WAV")


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except ImportError as error:
        raise UserError(
            "sound files need soundfile: install pretzel-starflow[sound] or soundfile"
        ) from error
    return soundfile  # type: ignore[no-any-return]
