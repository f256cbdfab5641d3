"""The benchmark of stages at tiny sizes: its arms compute the same; it is not timed."""

from benchmarks.stages import main


def test_what_is_left_out_changes_nothing(capsys):
    assert main(["--quick"]) == 0  # raises where an arm computes something else
    lines = capsys.readouterr().out.splitlines()[1:]
    compared = [line.split(": ")[1] for line in lines]
    assert compared == 2 * [
        "read beside first",
        "read beside model",
        "text alone beside both streams",
    ]
