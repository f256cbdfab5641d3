"""Shared by the tests of `pretzel import`."""

import pytest


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Work in a folder of its own: nothing may depend on the current one."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
