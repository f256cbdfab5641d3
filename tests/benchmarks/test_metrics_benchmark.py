"""The benchmark of metrics at tiny sizes: its arms compute the same; it is not timed."""

from benchmarks.metrics import main


def test_arms_agree(capsys):
    assert main(["--quick", "--only", "fid"]) == 0  # raises where an arm computes something else
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("200 images, 16 features: ours" in line for line in lines)
