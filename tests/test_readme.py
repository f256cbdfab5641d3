"""The README: short, with what a newcomer needs first. Its blocks run in ``tests/docs``."""

from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_first_screen_shows_demo_and_test():
    first = "\n".join(README.splitlines()[:40])
    assert "make demo" in first
    assert "make test" in first


def test_it_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 150
