"""The benchmark of data in small: its arms run and are told; it is not timed."""

from benchmarks.data import main


def test_rates_start_resume_and_memory_are_told(capsys):
    assert main(["--quick"]) == 0
    told = capsys.readouterr().out
    for words in (
        "0 workers:",
        "of webdataset's rate",
        "first batch after",
        "resumed at 90 %",
        "scenes of 64",
    ):
        assert words in told
