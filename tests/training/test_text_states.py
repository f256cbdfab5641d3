"""Text states from disk: the same losses, without the vision-language model."""

import os
import time
import warnings
from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import TRANSFORMER, caption_batch, fit, joined, perturb, question_batch, tiny_module

from pretzel.errors import UserError
from pretzel.flow import AFBlock, AffineSoftplus, ExplicitSplit, Raster
from pretzel.interleave import GatedSkip, RandomSkip, Stacked, TextPrefix, Unconditional
from pretzel.interleave.tiled import Tiled
from pretzel.latent import Pixels
from pretzel.sequence.document import Document, DocumentBatch, Image, Text, caption_document
from pretzel.tarflow import TarFlow
from pretzel.tarflow.condition import NoCondition
from pretzel.training.text_states import TextStates, default_folder
from pretzel.training.text_states.serving import prefix_lengths
from pretzel.training.text_states.store import StateStore

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")

S1 = {"trains": ["shallow", "deep", "interleaving.text_input?", "interleaving.start?"]}


def first_stage(interleaving=Stacked, **options):
    torch.manual_seed(0)
    module = tiny_module(interleaving, **{"text_weight": 0.0, **S1, **options})
    perturb(module)  # what trains, the skips not
    return module


def captions(*more):
    dropped = caption_document("a red circle", key="d", dropped=True)
    one = DocumentBatch(documents=(dropped,), images=tiny.images(1, seed=5))
    return joined(caption_batch("a red circle", "a shape", "a red circle"), one, *more)


def scores(module, batch, states=None):
    """Return losses and gradients; those of ``states`` are served."""
    noise = torch.zeros(len(batch.images), 4, 48)
    x = module.pretzel.encode(batch.images, noise)
    module.zero_grad()
    if states is None:
        actual = module.pretzel.score(batch.documents, x)
    else:
        with states.serving(module.pretzel):
            actual = module.pretzel.score(batch.documents, x)
    actual.log_prob.mean().backward()
    gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    return actual, gradients


def counted(module, monkeypatch):
    """Return a list that receives the shape of every run of the vision-language model."""
    shapes = []
    kind = type(module.pretzel.vlm)
    forward = kind.forward

    def counting(self, embeddings, *args, **kwargs):
        shapes.append(tuple(embeddings.shape[:2]))
        return forward(self, embeddings, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counting)
    return shapes


def started(module, folder, **options):
    states = TextStates(folder, **options)
    states.start(module.pretzel)
    return states


@pytest.mark.parametrize(
    "interleaving",
    [Stacked, partial(Stacked, skips=GatedSkip), TextPrefix, Unconditional],
    ids=["Stacked", "gated", "TextPrefix", "Unconditional"],
)
def test_losses_and_gradients_are_those_of_the_model(interleaving, tmp_path, monkeypatch):
    module, batch = first_stage(interleaving), captions()
    expected, gradients = scores(module, batch)
    shapes = counted(module, monkeypatch)
    states = started(module, tmp_path)
    for _ in range(2):
        actual, own = scores(module, batch, states)
        torch.testing.assert_close(actual.log_prob, expected.log_prob, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(actual.token_nll, expected.token_nll, rtol=1e-6, atol=1e-6)
        assert own.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    if interleaving is Unconditional:
        assert shapes == []
        return
    # one run in all for each different text: two captions, and begin-of-image by itself
    assert shapes == [(1, 4), (1, 3), (1, 1)]
    states.finish()
    again = started(module, tmp_path)
    torch.testing.assert_close(scores(module, batch, again)[0].log_prob, actual.log_prob)
    assert len(shapes) == 3
    assert (again.num_computed, again.num_read) == (0, 3)


def test_a_whole_run_trains_the_same_weights(tmp_path):
    weights = []
    for states in (None, TextStates(tmp_path)):
        module = first_stage(text_states=states)
        fit(module, tmp_path, 3, [captions()])
        weights.append(module.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1


def test_text_that_follows_an_image_is_left_to_the_model(tmp_path, monkeypatch):
    module = first_stage()
    batch = captions(question_batch(("what color is the shape?", "red")))
    expected, _ = scores(module, batch)
    shapes = counted(module, monkeypatch)
    actual, _ = scores(module, batch, started(module, tmp_path))
    assert torch.equal(actual.token_nll, expected.token_nll)
    assert torch.equal(actual.log_prob, expected.log_prob)
    (shape,) = shapes
    assert shape[0] == len(batch.documents)


def test_rows_that_only_begin_with_text_are_told_from_others():
    packer = tiny.tiny_pretzel().packer
    vlm = tiny.TinyVLM()
    text, image = Text(content="a circle"), Image()
    rows = {
        (text, image): 3,
        (image,): 1,
        (text,): 2,
        (text, image, text): None,
        (text, image, image): None,
        (image, text, image): None,
    }
    for segments, expected in rows.items():
        long = Document(key="long", segments=(Text(content="a " * 40),))
        packed = packer([Document(key="", segments=segments), long])
        lengths = prefix_lengths(packed.tokens, packed.is_image, vlm)
        assert lengths == (None if expected is None else [expected, 40]), segments


def test_states_belong_to_the_model_and_to_its_new_tokens(tmp_path, monkeypatch):
    class Plain(tiny.TinyVLM):
        def __init__(self):
            super().__init__()
            self.special = replace(self.special, begin_of_image=self.vocab_size)

    monkeypatch.setattr(tiny, "TinyVLM", Plain)
    module, batch = first_stage(), captions()
    expected, _ = scores(module, batch)
    states = started(module, tmp_path)
    torch.testing.assert_close(scores(module, batch, states)[0].log_prob, expected.log_prob)
    states.finish()
    with torch.no_grad():
        module.pretzel.interleaving.new_tokens.embedding += 1.0
    other = started(module, tmp_path)
    scores(module, batch, other)
    assert other.num_computed == 3, "the embedding of begin-of-image is another"
    module.pretzel.vlm.identity = "another"
    assert started(module, tmp_path)._store.folder != other._store.folder
    module.pretzel.interleaving.new_tokens.requires_grad_(True)
    with pytest.raises(UserError, match=r"but interleaving\.new_tokens trains"):
        TextStates(tmp_path).check(module.pretzel)


@pytest.mark.parametrize(
    ("interleaving", "options", "message"),
    [
        (Stacked, {"trains": None}, r"interleaving\.adapter must not train, but it does"),
        (Stacked, {"trains": [*S1["trains"], "interleaving.vlm_skip"]}, "but it trains"),
        (partial(Stacked, skips=RandomSkip), {}, "it is not zero|is on from the start"),
        (partial(Tiled, word="VVVVF"), {}, r"\(Stacked, TextPrefix, Unconditional\), got Tiled"),
    ],
)
def test_it_is_refused_where_image_positions_of_the_model_matter(
    interleaving, options, message, tmp_path
):
    with pytest.raises(UserError, match=message):
        first_stage(interleaving, text_states=TextStates(tmp_path), **options)
    assert not list(tmp_path.iterdir())


def test_it_is_refused_once_the_weights_are_there(tmp_path):
    module = first_stage(text_states=TextStates(tmp_path / "states"))
    module.pretzel.interleaving.vlm_skip.linear.weight.data[0, 0] = 1e-3
    with pytest.raises(UserError, match="but it is not zero"):
        fit(module, tmp_path, 1, [captions()])
    # without a skip there is nothing to prove
    first_stage(partial(Stacked, vlm_skip=False), text_states=TextStates(tmp_path))


def test_a_stage_that_is_only_planned_is_checked_without_weights(tmp_path):
    with torch.device("meta"):
        tiny_module(text_states=TextStates(tmp_path), text_weight=0.0, **S1)
        skip = [*S1["trains"], "interleaving.vlm_skip"]
        with pytest.raises(UserError, match="but it trains"):
            tiny_module(text_states=TextStates(tmp_path), text_weight=0.0, trains=skip)


def test_a_flow_by_itself_has_no_text_states():
    def block(channels, grid, layers, order):
        return AFBlock(
            channels, grid, layers, order, transform=AffineSoftplus(), conditioner=TRANSFORMER
        )

    flow = TarFlow(
        Pixels(image_size=8, patch_size=4, noise=0.1), ExplicitSplit(shallow=[], deep=1),
        [Raster()], block, block, NoCondition(),
    )  # fmt: skip
    with pytest.raises(UserError, match="needs a model with a VLM stream, got TarFlow"):
        TextStates().check(flow)


# The folder


def test_the_users_cache_is_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "pretzel" / "text_states"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative: to be ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "pretzel" / "text_states"
    assert not list(tmp_path.iterdir()), "nothing is written before it is asked for"


def test_a_folder_is_shared_bounded_and_read_without_trust(tmp_path):
    def key(number):
        return bytes([number]) * 16

    def text(number):
        return torch.full((number + 1, 4), float(number))

    one, two = (StateStore(tmp_path, 2**20, 2**16) for _ in range(2))
    for number in range(4):
        one.put(key(number), text(number))
    assert two.get(key(2)) is None
    one.flush()
    two.flush()
    for number in range(4):
        assert torch.equal(two.get(key(number)), text(number))
    two.put(key(9), text(3).half())
    two.put(key(8), text(3))
    two.flush()
    assert one.get(key(9)) is None
    one.flush()
    assert one.get(key(9)).dtype == torch.float16
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04not tensors")
    with pytest.warns(UserWarning, match=r"broken\.safetensors is left unread"):
        full = StateStore(tmp_path, 1, 2**16)
    assert torch.equal(full.get(key(2)), text(2))
    full.put(key(7), text(7))
    assert full.get(key(7)) is None
    small = StateStore(tmp_path / "small", 2**20, 8)  # a shard each
    for number in range(4):
        small.put(key(number), text(number))
    assert len(list((tmp_path / "small").glob("*.safetensors"))) == 4
    with pytest.raises(UserError, match="cannot be made"):
        StateStore(tmp_path / "broken.safetensors" / "x", 1, 1)


def fresh(number):
    return bytes([number]) * 16, torch.full((number + 1, 4), float(number + 1))


@pytest.mark.parametrize("part", ["states", "keys"])
def test_a_damaged_shard_is_ignored_and_its_states_are_computed_anew(tmp_path, part):
    kept = [fresh(number) for number in range(3)]
    store = StateStore(tmp_path, 2**20, 2**16)
    for key, states in kept:
        store.put(key, states)
    store.flush()
    (path,) = tmp_path.glob("*.safetensors")
    content = {
        "states": kept[1][1].numpy().tobytes(),
        "keys": kept[1][0].hex().encode(),
    }[part]
    data = bytearray(path.read_bytes())
    data[data.index(content)] ^= 0x01
    path.write_bytes(data)
    damaged = StateStore(tmp_path, 2**20, 2**16)
    with pytest.warns(UserWarning, match="is left unread: its content is not what its hash says"):
        assert damaged.get(kept[0][0]) is None
    assert all(damaged.get(key) is None for key, _ in kept)  # said once
    for key, states in kept:
        damaged.put(key, states)
    damaged.flush()
    again = StateStore(tmp_path, 2**20, 2**16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whichever shard comes first
        assert all(torch.equal(again.get(key), states) for key, states in kept)


def test_a_shard_without_a_hash_is_left_unread(tmp_path):
    key, states = fresh(1)
    store = StateStore(tmp_path, 2**20, 8)
    store.put(key, states)
    (path,) = tmp_path.glob("*.safetensors")
    save_file(load_file(path), path)
    with pytest.warns(UserWarning, match="left unread"):
        assert StateStore(tmp_path, 2**20, 8).get(key) is None


def test_damage_is_told_once(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.safetensors").write_bytes(b"none")
    with pytest.warns(UserWarning, match="left unread") as caught:
        StateStore(tmp_path, 2**20, 8)
    assert len(caught) == 1


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path):
    old, new = tmp_path / "old.partial", tmp_path / "new.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    day = time.time() - 25 * 3600
    os.utime(old, (day, day))
    StateStore(tmp_path, 2**20, 2**16)
    assert list(tmp_path.iterdir()) == [new]


def test_processes_that_write_together_keep_to_the_size_of_the_folder(tmp_path):
    size = 2 * 4 * 4
    stores = [StateStore(tmp_path, 3 * size, 2**16) for _ in range(3)]
    for number, store in enumerate(stores):
        for row in range(2):  # each has room by itself
            store.put(bytes([number, row]) * 8, torch.ones(2, 4))
    for store in stores:
        store.flush()
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
