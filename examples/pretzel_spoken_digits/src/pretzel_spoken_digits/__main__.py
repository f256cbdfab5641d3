"""Make data, latent space, text encoder and judge: ``python -m pretzel_spoken_digits``."""

import argparse
import io
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from jaxtyping import Int16
from pretzel.files.atomic import whole_file
from scipy.signal import resample_poly

from pretzel_spoken_digits.judge import class_indices, save_judge, train_judge
from pretzel_spoken_digits.latents import fit_mel_latents
from pretzel_spoken_digits.speech import Synthesiser, Utterance, utterances
from pretzel_spoken_digits.words import save_words

RATE, NUM_SAMPLES = 16_000, 16_384
ONSET = 512
"""Samples of silence before a word."""
CHANNELS = 24
SPLITS = ("val", "test", *["train"] * 8)


def split_of(utterance: Utterance) -> str:
    """Return the split of a word in a voice and pitch, at whatever speed it is said."""
    return SPLITS[zlib.crc32(utterance.name.encode()) % len(SPLITS)]


def say(synthesiser: Synthesiser, utterance: Utterance) -> Int16[np.ndarray, " t"]:
    """Return what is said as samples of 16 bits, a second of them, at :data:`RATE`."""
    sound = resample_poly(synthesiser.say(utterance), RATE, synthesiser.sample_rate)
    samples = np.zeros(NUM_SAMPLES, dtype=np.int16)
    sound = np.rint(sound * 32767).clip(-32767, 32767)[: NUM_SAMPLES - ONSET]
    samples[ONSET : ONSET + len(sound)] = sound
    return samples


def main(args: Sequence[str] | None = None) -> None:
    """Write shards of spoken digits, mel latents, a text encoder and a judge, all made of them."""
    parser = argparse.ArgumentParser(prog="python -m pretzel_spoken_digits", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("digits"), help="where to write")
    parser.add_argument("--judge-steps", type=int, default=300, help="steps of its training")
    options = parser.parse_args(args)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)

    synthesiser = Synthesiser()
    said = [(utterance, say(synthesiser, utterance)) for utterance in utterances()]
    splits = {
        name: [(u, samples) for u, samples in said if split_of(u) == name]
        for name in dict.fromkeys(SPLITS)
    }
    for name, members in splits.items():
        write_shard(folder / f"{name}-000.tar", members)
        print(f"{name}: {len(members)} sounds")

    sounds, truth = as_tensors(splits["train"])
    fit_mel_latents(folder / "latents.safetensors", sounds, RATE, CHANNELS)
    save_words(folder / "words.safetensors", (u.caption for u, _ in splits["train"]))
    judge = train_judge(sounds, truth, RATE, steps=options.judge_steps)
    save_judge(judge, folder / "judge.safetensors")
    sounds, truth = as_tensors(splits["test"])
    heard = torch.cat([judge.classes(part[:, None]) for part in sounds.split(100)])
    print(f"judge: all three right of {(heard == truth).all(1).double().mean():.3f} of the test")


def as_tensors(
    said: Sequence[tuple[Utterance, Int16[np.ndarray, " t"]]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sounds in [-1, 1] and their classes."""
    sounds = torch.from_numpy(np.stack([samples for _, samples in said])) / 32767
    return sounds, class_indices([(u.word, u.speaker, u.manner) for u, _ in said])


def write_shard(path: Path, said: Sequence[tuple[Utterance, Int16[np.ndarray, " t"]]]) -> None:
    """Write ``key.wav`` and ``key.txt`` of each utterance to a tar."""
    with whole_file(path) as partial, tarfile.open(partial, "w") as archive:
        # In the order of a hash: each part of a shard then holds all words
        for utterance, samples in sorted(said, key=lambda s: zlib.crc32(s[0].key.encode())):
            wav = io.BytesIO()
            soundfile.write(wav, samples, RATE, format="WAV")
            text = utterance.caption.encode()
            for suffix, data in (("wav", wav.getvalue()), ("txt", text)):
                member = tarfile.TarInfo(f"{utterance.key}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
