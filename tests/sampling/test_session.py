"""Sessions: what the laws of generation catch, and what they refuse."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from pretzel.errors import UserError
from pretzel.generation.rows import Rows
from pretzel.generation.session import Session
from pretzel.generation.token_choice import Writing
from pretzel.interleave import Stacked, TextPrefix, Unconditional
from pretzel.interleave.base import StreamCaches
from pretzel.interleave.mixture import MixtureOfTransformers
from pretzel.interleave.tiled import Tiled
from pretzel.interleave.vision_input import LatentInput
from pretzel.sampling.guidance import (
    AttentionTemperature,
    GaussianMixing,
    LinearGuidance,
    NoGuidance,
)
from pretzel.sampling.samplers import GaussSeidelJacobi, Jacobi, SelectiveJacobi, Sequential
from pretzel.testing import Case, LawBroken, generation, laws_of, tiny_pretzel
from pretzel.testing.conversations import converse, recomputed
from pretzel.testing.models import latents
from pretzel.testing.suite import try_law

UNSEEN = partial(Stacked, vision_input=LatentInput())
VF = partial(Tiled, word="VF")


def built(interleaving=Stacked, **sizes):
    return Case(factory=lambda: tiny_pretzel(interleaving, **sizes), perturbed=True).build()


def law_breaks(name, interleaving=Stacked):
    case = Case(factory=partial(tiny_pretzel, interleaving), perturbed=True)
    with pytest.raises(LawBroken) as broken:
        getattr(generation, name)(case)
    return str(broken.value)


# Sessions that do something wrong, and the laws that catch them


def test_padding_that_counts_is_caught(monkeypatch):
    inputs = Rows.inputs

    def counting(self, model, blocks, *args):
        blocks = [type(b)(tokens=b.tokens, valid=b.valid, counts=b.valid | True) for b in blocks]
        return inputs(self, model, blocks, *args)

    monkeypatch.setattr(Rows, "inputs", counting)
    law_breaks("conversations_equal_recomputation")
    law_breaks("conversations_of_rows_are_independent")


def test_padding_that_is_attended_is_caught(monkeypatch):
    inputs = Rows.inputs

    def attending(self, model, blocks, *args):
        blocks = [type(b)(tokens=b.tokens, valid=b.valid | True, counts=b.counts) for b in blocks]
        return inputs(self, model, blocks, *args)

    monkeypatch.setattr(Rows, "inputs", attending)
    assert "attends" in law_breaks("conversations_commit_positions_once")


def test_an_image_that_takes_no_place_on_the_text_axis_is_caught(monkeypatch):
    end_image = Session.end_image

    def end(self, u, x):
        self.rows.place = self.rows.place - 1
        end_image(self, u, x)

    monkeypatch.setattr(Session, "end_image", end)
    law_breaks("conversations_equal_recomputation")


def test_an_image_that_is_read_again_is_caught(monkeypatch):
    draw = Session.draw

    def again(self, z, guidance, sampler=None):
        drawn = draw(self, z, guidance, sampler)
        self.read_image(drawn.u, drawn.x)
        return drawn

    monkeypatch.setattr(Session, "draw", again)
    assert "were generated" in law_breaks("conversations_commit_positions_once")


def test_history_that_is_encoded_again_is_caught(monkeypatch):
    flush = Session.flush

    def again(self):
        model = self.model
        if self._pending and self.rows.length:
            old = torch.zeros(1, self.rows.length, dtype=torch.long)
            model.vlm(model.interleaving.embed(old, model.vlm), old)
        flush(self)

    monkeypatch.setattr(Session, "flush", again)
    assert "the VLM ran over" in law_breaks("conversations_commit_positions_once")


@pytest.mark.parametrize("interleaving", [Stacked, UNSEEN, TextPrefix, VF, MixtureOfTransformers])
def test_provisional_positions_that_stay_in_the_caches_are_caught(interleaving, monkeypatch):
    case = Case(factory=partial(tiny_pretzel, interleaving), perturbed=True)
    generation.positions_are_committed_once(case)
    (law,) = [
        law
        for law in laws_of(case.build())
        if law.name == "generation.positions_are_committed_once"
    ]
    rewind = StreamCaches.rewind
    for stays in (lambda self, _: None, lambda self, count: rewind(self, count - 1)):
        monkeypatch.setattr(StreamCaches, "rewind", stays)
        assert not try_law(law, case).passed


def test_a_sampler_that_calls_provisional_what_it_commits_is_caught(monkeypatch):
    def solve(self, inversion, block):
        work = Sequential.solve(self, inversion, block)
        return replace(work, provisional=1)

    monkeypatch.setattr(Jacobi, "solve", solve)
    assert "are said to commit" in law_breaks("positions_are_committed_once")


def test_a_null_branch_that_sees_the_prompt_is_caught(monkeypatch):
    select = Rows.select

    def keeping(self, rows):
        chosen = select(self, rows)
        chosen.valid = Kept(chosen.valid) if len(rows) > len(self.valid) else chosen.valid
        return chosen

    class Kept(torch.Tensor):
        def __new__(cls, tensor):
            return tensor.as_subclass(cls)

        def __setitem__(self, index, value):
            if value is not False:
                super().__setitem__(index, value)

    monkeypatch.setattr(Rows, "select", keeping)
    law_breaks("null_branches_equal_recomputation")


def test_the_null_branch_is_dropped_with_its_image():
    model = built()
    spoken = converse(model)
    rows = [len(outputs.deep) for outputs in spoken.outputs]
    n = model.latent.num_positions
    # prompt with begin-of-image and image, twice, with both branches; text without
    assert rows.count(6) == 2 * (1 + n)
    assert rows[-1] == 3
    assert spoken.session.rows.count == 3
    assert spoken.session.caches.deep.keys.shape[1] == 3


def test_an_image_that_is_not_shown_when_complete_is_caught(monkeypatch):
    def commit_image(self, inputs, vlm, caches):
        self.run_vlm(type(inputs)(**{**vars(inputs), "vision": inputs.vision * 0}), vlm, caches)

    monkeypatch.setattr(Stacked, "commit_image", commit_image)
    law_breaks("conversations_equal_recomputation", UNSEEN)


# What a session promises


@pytest.mark.parametrize(
    "sampler",
    [
        Jacobi(block_size=2, tolerance=0.0),
        SelectiveJacobi(Jacobi(tolerance=0.0), num_sequential=0),
        GaussSeidelJacobi(tolerance=0.0),
    ],
)
@pytest.mark.parametrize("interleaving", [Stacked, UNSEEN, VF, MixtureOfTransformers])
def test_any_sampler_gives_the_same_images_and_leaves_the_same_caches(sampler, interleaving):
    model = built(interleaving)
    drawn = []
    for chosen in (None, sampler):
        session = Session(model, 2, 60)
        with torch.no_grad():
            for key in ("z", "other"):
                session.read_text(["a red circle", "why?"])
                drawn.append(session.draw(latents(model, 2, key=key), GaussianMixing(1.0), chosen))
            session.flush()
        drawn.append(session.rows)
    for one, other in zip(drawn[:2], drawn[3:5], strict=True):
        torch.testing.assert_close(one.u, other.u, rtol=0, atol=1e-10)
        torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-10)
    torch.testing.assert_close(drawn[2].text, drawn[5].text, rtol=0, atol=1e-10)


def test_given_images_are_read_as_drawn_ones_are():
    for interleaving in (Stacked, UNSEEN):
        model = built(interleaving)
        states = []
        with torch.no_grad():
            session = Session(model, 1, 40)
            session.read_text(["look"])
            drawn = session.draw(latents(model, 1, key="z"), NoGuidance())
            session.flush()
            states.append(session.rows)
            session = Session(model, 1, 40)
            session.read_text(["look"])
            session.read_image(drawn.u, drawn.x)
            states.append(session.rows)
        for name in ("state", "text", "next_index", "place"):
            found, expected = (getattr(rows, name) for rows in states)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_attention_temperature_guides_a_later_image_too():
    model = built()
    z = latents(model, 2, key="z")

    def second(temperature):
        guidance = AttentionTemperature(LinearGuidance(1.0), temperature, keeps_context=True)
        session = Session(model, 2, 60)
        with torch.no_grad():
            session.read_text(["a red circle", "why?"])
            session.draw(latents(model, 2), NoGuidance())
            session.read_text(["a blue one", "a"])
            drawn = session.draw(z, guidance)
            # the branch is dropped, and leaves no temperature behind
            session.flush()
        return drawn.u

    plain = second(1.0)
    assert not torch.allclose(second(2.0), plain)


def test_what_is_drawn_at_random_is_keyed_by_row_and_turn():
    model = built()

    def written(keys, seed=0):
        session = Session(model, len(keys), 60, keys=keys, seed=seed)
        with torch.no_grad():
            session.read_text(["what is it?"] * len(keys))
            rows = torch.stack(list(session.write(6, Writing(temperature=3.0))), dim=1)
        return rows.tolist()

    a, b, again = written(["a", "b", "a"])
    assert a == again
    assert a != b
    assert written(["b"]) == [b]
    assert written(["a"], seed=1) != [a]


def test_rows_that_have_ended_commit_nothing_that_counts():
    model = built()
    end = model.vlm.special.end_of_text

    class EndsFirstRow(Writing):
        def choose(self, logits, uniform=None):
            token = super().choose(logits.index_fill(-1, torch.tensor([end]), -torch.inf))
            return torch.where(torch.arange(len(token)) == 0, end, token)

    session = Session(model, 2, 60)
    with torch.no_grad():
        session.read_text(["why?", "what is it?"])
        session.flush()
        before = session.rows.next_index
        tokens = torch.stack(list(session.write(4, EndsFirstRow())), dim=1)
        session.flush()
    assert tokens[0].tolist() == [end] * 4
    assert (session.rows.next_index - before).tolist() == [1, 4]
    assert session.rows.valid.sum(dim=1).tolist() == session.rows.next_index.tolist()


def test_special_tokens_are_not_written_and_begin_of_image_only_where_one_may_be_drawn():
    model = built()
    special = model.vlm.special
    seen = []

    class Watches(Writing):
        def choose(self, logits, uniform=None):
            seen.append(logits[0].isinf().nonzero()[:, 0].tolist())
            return super().choose(logits)

    with torch.no_grad():
        for may_draw in (False, True):
            session = Session(model, 1, 30)
            session.read_text(["why?"])
            next(session.write(1, Watches(), may_draw=may_draw))
    never = [special.pad, special.end_of_image]
    assert sorted(seen[0]) == sorted([*never, special.begin_of_image])
    assert sorted(seen[1]) == sorted(never)


def test_a_sequence_longer_than_its_room_is_refused():
    model = built()
    session = Session(model, 1, 5)
    session.read_text(["a red circle"])
    with pytest.raises(UserError, match=r"must fit into the room of its caches, 5 positions, got"):
        session.draw(latents(model, 1), NoGuidance())


@pytest.mark.parametrize("interleaving", [TextPrefix, Unconditional])
def test_models_of_one_image_refuse_another_and_text(interleaving):
    model = built(interleaving)
    session = Session(model, 1, 40)
    z = latents(model, 1)
    with torch.no_grad():
        session.read_text(["a red circle"])
        session.draw(z, NoGuidance())
        with pytest.raises(UserError, match=f"{interleaving.__name__} models no image behind an"):
            session.draw(z, NoGuidance())
        with pytest.raises(UserError, match=f"answers questions, got {interleaving.__name__}"):
            next(session.write(3))


def test_text_must_follow_something():
    with pytest.raises(UserError, match="text must follow a text or an image"):
        next(Session(built(), 1, 10).write(3))


def test_recomputation_packs_what_was_said_and_written():
    model = built()
    spoken = converse(model)
    packed, _ = recomputed(model, spoken)
    for row in range(3):
        valid = spoken.session.rows.valid[row]
        assert packed.is_valid[row].sum() == valid.sum()
        assert packed.index[row, -1] == packed.tokens.shape[1] - 1
