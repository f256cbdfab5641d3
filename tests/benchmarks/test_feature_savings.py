"""The benchmark of latents at tiny sizes: its arms compute the same; it is not timed."""

import pytest

from benchmarks.features import main


@pytest.mark.slow  # the parts are in tests/datamodules/test_latent_files.py
def test_latents_change_nothing(capsys):
    assert main(["--quick"]) == 0  # raises where an arm computes something else
    lines = [line for line in capsys.readouterr().out.splitlines() if "of the CPU time" in line]
    assert [line.split(":")[1] for line in lines] == [" latents beside pictures"] * 2
