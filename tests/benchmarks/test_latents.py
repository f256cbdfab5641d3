"""The benchmark of latent spaces in small: every arm is there and computes; it is not timed."""

from benchmarks.latents import main


def test_every_space_and_every_stage_is_measured(capsys):
    assert main(["--quick"]) == 0  # raises where latents and pictures differ
    lines = [line for line in capsys.readouterr().out.splitlines() if "of the CPU time" in line]
    assert [":".join(line.split(":")[:2]) for line in lines] == [
        "features from latents: step beside bare",
        "pixels from true features: step beside bare",
        "pixels from reconstructed features: step beside bare",
        *(
            f"{way}: FAE beside {other}"
            for way in ("encode", "decode")
            for other in ("Autoencoder", "LinearLatents", "Pixels")
        ),
        "a step on FAE: latents beside pictures",
    ]
