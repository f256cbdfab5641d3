"""Spoken digits: eSpeak NG says one word with one voice, at one pitch and one speed."""

import ctypes
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import final

import numpy as np
from jaxtyping import Float

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = {
    "man": ("en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-gb-x-rp", "en-us+Andy"),
    "woman": ("en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+Annie", "en-us+Alicia"),
}
"""Voices of eSpeak NG by what a caption calls them."""
PITCHES = (30, 40, 50, 60)
SPEEDS = {"quickly": (220, 240, 260), "slowly": (120, 130, 140)}
"""Words a minute by what a caption calls them."""

_RATE, _PITCH, _SYNCHRONOUS, _UTF8 = 1, 3, 2, 1  # of espeak-ng/speak_lib.h


@final
@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A word as it is to be said.

    Attributes:
        word: One of :data:`WORDS`.
        speaker: ``man`` or ``woman``.
        voice: Number of the voice among those of the speaker.
        pitch: Pitch on eSpeak's scale, 0 to 99.
        manner: ``quickly`` or ``slowly``.
        speed: Words a minute.
    """

    word: str
    speaker: str
    voice: int
    pitch: int
    manner: str
    speed: int

    @property
    def name(self) -> str:
        """Name of the word as said by this voice at this pitch, at any speed."""
        return f"{self.word}-{self.speaker}{self.voice}-p{self.pitch}"

    @property
    def key(self) -> str:
        """Key of the sample."""
        return f"{self.name}-s{self.speed}"

    @property
    def caption(self) -> str:
        """Description of the sound. The word stands first: text states of what follows know it."""
        return f"{self.word}, said {self.manner} by a {self.speaker}"


def utterances() -> Iterator[Utterance]:
    """Yield every word in every voice, pitch and speed, always in the same order."""
    speeds = [(manner, speed) for manner in SPEEDS for speed in SPEEDS[manner]]
    voices = [(speaker, n) for speaker in SPEAKERS for n in range(len(SPEAKERS[speaker]))]
    for word, (speaker, voice), pitch, (manner, speed) in product(WORDS, voices, PITCHES, speeds):
        yield Utterance(
            word=word, speaker=speaker, voice=voice, pitch=pitch, manner=manner, speed=speed
        )


@final
class Synthesiser:
    """The library of eSpeak NG (GPL-3.0) that the package ``espeakng-loader`` brings.

    Attributes:
        sample_rate: Samples a second of what it says.

    Raises:
        ModuleNotFoundError: If ``espeakng-loader`` is not installed.
    """

    def __init__(self) -> None:
        self._library, self.sample_rate = _library()
        self._chunks: list[Float[np.ndarray, " t"]] = []
        # C holds this pointer as long as the library is loaded
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, utterance: Utterance) -> Float[np.ndarray, " t"]:
        """Return the sound of a word, in [-1, 1]."""
        voice = SPEAKERS[utterance.speaker][utterance.voice].encode()
        text = utterance.word.encode()
        self._chunks.clear()
        # Of the noise in consonants: without it, no two runs would say the same
        self._library.espeak_ng_SetRandSeed(1 + zlib.crc32(utterance.key.encode()) // 2)
        _check(self._library.espeak_SetVoiceByName(voice), "espeak_SetVoiceByName")
        for parameter, value in ((_RATE, utterance.speed), (_PITCH, utterance.pitch)):
            _check(self._library.espeak_SetParameter(parameter, value, 0), "espeak_SetParameter")
        size = len(text) + 1
        status = self._library.espeak_Synth(text, size, 0, 0, 0, _UTF8, None, None)
        _check(status, "espeak_Synth")
        return np.concatenate(self._chunks)

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: object) -> int:
        if samples and count:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768)
        return 0


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    return library, library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)


def _check(status: int, function: str) -> None:
    if status:
        raise RuntimeError(f"{function} of eSpeak NG failed with status {status}")
