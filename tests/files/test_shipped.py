"""A value means a file that ships, by its name, or a path."""

import pytest

from pretzel.errors import UserError
from pretzel.files.shipped import file_of


@pytest.fixture
def shipped(tmp_path):
    for name in ("easy_vqa.part.json", "scenes.part.json", "other.json"):
        (tmp_path / name).touch()
    return tmp_path / "easy_vqa.part.json"


def test_none_is_the_one_at_hand_and_a_name_one_beside_it(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes").mkdir()
    assert file_of("weights", None, shipped) == shipped
    assert file_of("weights", "scenes", shipped) == shipped.with_name("scenes.part.json")


@pytest.mark.parametrize("path", ["scenes.json", "runs/scenes", "here"])
def test_a_path_is_left_alone(path, shipped, monkeypatch):
    (shipped.parent / "here").touch()
    monkeypatch.chdir(shipped.parent)
    assert str(file_of("weights", path, shipped)) == path


def test_another_name_is_refused_with_those_that_there_are(shipped):
    with pytest.raises(UserError, match=r"^weights must be .* \(easy_vqa, scenes\), got scene$"):
        file_of("weights", "scene", shipped)
