import pytest

from pretzel.vlm.tiny import TinyVLM


@pytest.fixture(scope="session")
def shipped() -> TinyVLM:
    """The shipped model; frozen, so that all tests may share it."""
    return TinyVLM()
