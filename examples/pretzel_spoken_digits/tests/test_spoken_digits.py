"""Sounds as spectra, latents and pitches; what the metric says of them; the splits."""

import math
import shlex
from collections import defaultdict
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.vlm.tiny import TinyVLM

import pretzel_spoken_digits.__main__ as making
from pretzel_spoken_digits.judge import Judge, class_indices, read_caption, save_judge
from pretzel_spoken_digits.latents import MelLatents, fit_mel_latents
from pretzel_spoken_digits.mel import MelSpectrogram, mel_filters
from pretzel_spoken_digits.metric import SpokenDigitAccuracy
from pretzel_spoken_digits.pitch import median_pitch
from pretzel_spoken_digits.speech import utterances
from pretzel_spoken_digits.words import save_words

EXAMPLE = Path(__file__).parents[1]
SHRINK = EXAMPLE.parents[1] / "tests" / "configs" / "shrink.yaml"
RATE, LENGTH = 16_000, 4096


def tones(*pitches):
    """Return sums of ten harmonics that fade, one a pitch."""
    time = torch.arange(LENGTH) / RATE
    return torch.stack(
        [
            sum(torch.sin(2 * math.pi * k * pitch * time) / k for k in range(1, 11))
            * 0.2
            * torch.exp(-8 * time)
            for pitch in pitches
        ]
    )


def test_bands_weigh_every_frequency_between_the_first_and_the_last_and_average():
    filters = mel_filters(RATE, 40, 512)
    assert torch.allclose(filters.sum(1), torch.ones(40))
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all()
    assert (filters[:, peaks[0] : peaks[-1]].sum(0) > 0).all()


def test_an_inverted_spectrum_is_the_spectrum_of_its_sound():
    mel = MelSpectrogram(RATE, bands=64, window=512, hop=128)
    spectra = mel(tones(110, 170, 251))
    assert spectra.shape == (3, LENGTH // 128, 64)
    again = mel(mel.invert(spectra))
    # natural logarithms: 0.3 is 2.6 dB, where the spectra spread over more than 2
    assert (again - spectra).square().mean().sqrt() < 0.3
    assert spectra.std() > 1
    assert mel.invert(spectra[:0]).shape == (0, LENGTH)


@pytest.fixture
def latent(tmp_path):
    path = tmp_path / "latents.safetensors"
    fit_mel_latents(path, tones(*range(90, 250, 5)), RATE, channels=6)
    return MelLatents(str(path), noise=0.2)


def test_latents_are_whitened_and_decode_to_sounds_with_those_latents(latent):
    sounds = tones(*range(90, 250, 5))[:, None]
    x = latent.encode(sounds)
    assert x.shape == (32, 8, 6) == (32, *latent.grid, latent.channels)
    flat = x.flatten(0, 1).double()
    assert torch.allclose(torch.cov(flat.T), torch.eye(6).double(), atol=1e-3)
    again = latent.encode(latent.decode(x))
    assert (again - x).square().mean() < 0.05
    with pytest.raises(UserError, match="no such file"):
        MelLatents("elsewhere.safetensors", noise=0.2)


def test_the_pitch_of_a_tone_is_measured_and_noise_has_none():
    found = median_pitch(tones(82, 110, 199.5, 320), RATE)
    assert torch.allclose(found, torch.tensor([82, 110, 199.5, 320]), rtol=0.02)
    noise = torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0))
    assert median_pitch(noise, RATE).isnan().all()
    assert median_pitch(torch.zeros(1, LENGTH), RATE).isnan().all()


def test_captions_say_what_was_said_and_no_split_shares_a_word_in_a_voice():
    names = defaultdict(set)
    for utterance in utterances():
        labels = (utterance.word, utterance.speaker, utterance.manner)
        assert read_caption(utterance.caption) == labels
        names[making.split_of(utterance)].add(utterance.name)
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 480
    assert read_caption("seven or nine, said slowly by a man") is None
    assert read_caption("seven, said by a man") is None


def test_the_text_encoder_has_a_token_for_every_word(tmp_path):
    captions = {utterance.caption for utterance in utterances()}
    save_words(tmp_path / "words.safetensors", captions)
    vlm = TinyVLM(str(tmp_path / "words.safetensors"))
    assert {len(vlm.encode_text(caption)) for caption in captions} == {7}
    tokens = torch.tensor([vlm.encode_text(caption) for caption in sorted(captions)])
    states = vlm(vlm.embed(tokens), torch.arange(7).expand(len(tokens), 7))[:, -1]
    distances = torch.cdist(states, states) + torch.eye(len(tokens)) * 100
    assert distances.min() > 0.1  # of states of length sqrt(128)


def test_the_metric_counts_what_the_judge_hears_and_the_pitch(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(RATE)
    save_judge(judge, tmp_path / "judge.safetensors")
    metric = SpokenDigitAccuracy(str(tmp_path / "judge.safetensors"))
    metric.prepare(torch.device("cpu"))
    sounds = tones(85, 160)[:, None]
    heard = judge.classes(sounds)
    prompts = [f"one, said slowly by a {speaker}" for speaker in ("man", "woman")]
    metric.update(sounds[:1], prompts[:1])
    metric.update(sounds[1:], prompts[1:])
    right = class_indices([read_caption(prompt) for prompt in prompts]) == heard
    values = metric.compute()
    assert values["right_pitch"] == 1
    assert values["right"] == right.all(1).double().mean()
    assert values["right_word"] == right[:, 0].double().mean()
    assert values.keys() == metric.names()
    metric.reset()
    metric.update(sounds, prompts[::-1])
    assert metric.compute()["right_pitch"] == 0
    assert not metric.accepts("a red circle")


def commands_of_readme():
    text = (EXAMPLE / "README.md").read_text()
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")  # of the package's dependencies, not of Pretzel's
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(making, "utterances", lambda: list(utterances())[::13])
    config = yaml.safe_load((EXAMPLE / "spoken_digits.yaml").read_text())
    for callback in config["trainer"]["callbacks"]:
        if "num_images" in callback.get("init_args", {}):
            callback["init_args"]["num_images"] = 2
    Path("spoken_digits.yaml").write_text(yaml.safe_dump(config))
    for words in commands_of_readme():
        match words:
            case ["pip" | "pytest" | "tensorboard", *_]:
                pass
            case ["python", "-m", "pretzel_spoken_digits", *options]:
                making.main([*options, "--judge-steps", "2"])
            case ["pretzel", "sample", *_]:
                assert main(words[1:]) == 0
            case ["pretzel", *_]:
                assert main([*words[1:], "-c", str(SHRINK)]) == 0
    (sound,) = (tmp_path / "seven").glob("*.wav")
    samples, rate = soundfile.read(sound)
    assert (rate, samples.shape) == (16_000, (16_384,))
    assert abs(samples).max() > 0
