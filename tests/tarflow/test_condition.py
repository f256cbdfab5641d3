import pytest
import torch
from text_encoders import CHANNELS, save_tiny_t5

from pretzel.tarflow import ClassNames, NoCondition, TextEncoder

CPU = torch.device("cpu")


def test_no_condition_has_no_context():
    assert NoCondition()(["a red circle", None], CPU) is None
    assert not NoCondition().reads_text


def test_class_names_become_labels_and_nothing_becomes_none(tmp_path):
    names = ClassNames(["cat", "dog", "owl"])
    assert names(["dog", None, "cat"], CPU).tolist() == [1, -1, 0]
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    assert ClassNames(tmp_path / "names.txt").labels == names.labels
    with pytest.raises(ValueError, match="must be the name of a class, got 'dgo'; did you mean"):
        names(["dgo"], CPU)


@pytest.mark.parametrize("given", [[], ["cat", "cat"]])
def test_class_names_must_differ(given):
    with pytest.raises(ValueError, match="names must be different and at least one"):
        ClassNames(given)


@pytest.mark.parametrize("name", ["", "  "])
def test_blank_names_are_refused_with_their_line(tmp_path, name):
    with pytest.raises(ValueError, match=r"names must not be blank, got .* at number 2"):
        ClassNames(["cat", name, "dog"])
    (tmp_path / "names.txt").write_text(f"cat\n{name}\ndog\n")
    with pytest.raises(ValueError, match=r"names must not be blank, got .* 2 of .*names\.txt"):
        ClassNames(tmp_path / "names.txt")


def test_a_missing_file_of_names_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"names must be a list or a file .*nothing\.txt"):
        ClassNames(tmp_path / "nothing.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("t5")
    return path, save_tiny_t5(path)


def test_text_states_are_the_encoders_own(folder):
    path, encoder = folder
    condition = TextEncoder(str(path), channels=CHANNELS, length=6, batch_size=2)
    states = condition(["a red circle", None, "a blue triangle"], CPU)
    assert states.shape == (3, 6, CHANNELS)
    ids = torch.tensor([[3, 4, 6, 0, 0, 0]])
    with torch.no_grad():
        own = encoder(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    torch.testing.assert_close(states[:1], own)
    # neither the batch nor gradients reach a text
    torch.testing.assert_close(condition(["a blue triangle"], CPU)[0], states[2])
    assert not states.requires_grad


def test_text_encoders_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=f"channels must be those of .*, {CHANNELS}, got 7"):
        TextEncoder(str(folder[0]), channels=7)(["a"], CPU)
    with pytest.raises(ValueError, match=r"text encoder and its tokenizer, got .*nothing"):
        TextEncoder(str(tmp_path / "nothing"), channels=7)(["a"], CPU)
    with pytest.raises(ValueError, match="length must be positive, got 0"):
        TextEncoder("anything", channels=7, length=0)
