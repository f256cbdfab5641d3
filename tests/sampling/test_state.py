"""The state of a generation: what the laws catch, and what it refuses."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from pretzel.errors import UserError
from pretzel.generation import conversation_batch
from pretzel.generation.latents import generate_latents
from pretzel.generation.state import GenerationState
from pretzel.generation.writing import Writing, write_tokens
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
from pretzel.testing import Case, LawBroken, laws_of, tiny_pretzel
from pretzel.testing.laws import generation
from pretzel.testing.laws.conversations import converse, recomputed
from pretzel.testing.laws.models import latents
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


# States that do something wrong, and the laws that catch them


def test_padding_that_counts_is_caught(monkeypatch):
    run = GenerationState._run

    def counting(self, blocks, *args):
        blocks = [type(b)(tokens=b.tokens, valid=b.valid, counts=b.valid | True) for b in blocks]
        return run(self, blocks, *args)

    monkeypatch.setattr(GenerationState, "_run", counting)
    law_breaks("conversations_equal_recomputation")
    law_breaks("conversations_of_rows_are_independent")


def test_padding_that_is_attended_is_caught(monkeypatch):
    run = GenerationState._run

    def attending(self, blocks, *args):
        blocks = [type(b)(tokens=b.tokens, valid=b.valid | True, counts=b.counts) for b in blocks]
        return run(self, blocks, *args)

    monkeypatch.setattr(GenerationState, "_run", attending)
    assert "attends" in law_breaks("conversations_commit_positions_once")


def test_an_image_that_takes_no_place_on_the_text_axis_is_caught(monkeypatch):
    end_image = GenerationState.end_image

    def end(self, u, x):
        self.place = self.place - 1
        end_image(self, u, x)

    monkeypatch.setattr(GenerationState, "end_image", end)
    law_breaks("conversations_equal_recomputation")


def test_an_image_that_is_read_again_is_caught(monkeypatch):
    def again(state, z, guidance, sampler=None):
        images = generate_latents(state, z, guidance, sampler)
        state.read_image(images.u, images.x)
        return images

    monkeypatch.setattr(conversation_batch, "generate_latents", again)
    assert "were generated" in law_breaks("conversations_commit_positions_once")


def test_history_that_is_encoded_again_is_caught(monkeypatch):
    flush = GenerationState.flush

    def again(self):
        model = self.model
        if self.pending and self.length:
            old = torch.zeros(1, self.length, dtype=torch.long)
            model.vlm(model.interleaving.embed(old, model.vlm), old)
        flush(self)

    monkeypatch.setattr(GenerationState, "flush", again)
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
        work = Sequential().solve(inversion, block)
        return replace(work, provisional=1)

    monkeypatch.setattr(Jacobi, "solve", solve)
    assert "are said to commit" in law_breaks("positions_are_committed_once")


def test_a_null_branch_that_sees_the_prompt_is_caught(monkeypatch):
    keep = GenerationState._keep

    def keeping(self, rows):
        is_doubled = len(rows) > len(self.valid)
        keep(self, rows)
        self.valid = Kept(self.valid) if is_doubled else self.valid

    class Kept(torch.Tensor):
        def __new__(cls, tensor):
            return tensor.as_subclass(cls)

        def __setitem__(self, index, value):
            if value is not False:
                super().__setitem__(index, value)

    monkeypatch.setattr(GenerationState, "_keep", keeping)
    law_breaks("null_branches_equal_recomputation")


def test_the_null_branch_is_dropped_with_its_image():
    model = built()
    recorded = converse(model)
    rows = [len(outputs.deep) for outputs in recorded.outputs]
    n = model.latent.num_positions
    # prompt with begin-of-image and image, twice, with both branches; text without
    assert rows.count(6) == 2 * (1 + n)
    assert rows[-1] == 3
    assert len(recorded.state.valid) == 3
    assert recorded.state.caches.deep.entries.shape[2] == 3


def test_an_image_that_is_not_shown_when_complete_is_caught(monkeypatch):
    def commit_image(self, inputs, vlm, caches):
        self.run_vlm(type(inputs)(**{**vars(inputs), "vision": inputs.vision * 0}), vlm, caches)

    monkeypatch.setattr(Stacked, "commit_image", commit_image)
    law_breaks("conversations_equal_recomputation", UNSEEN)


# What a state promises


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
        state = GenerationState(model, 2, 60)
        with torch.no_grad():
            for key in ("z", "other"):
                state.read_text(["a red circle", "why?"])
                drawn.append(
                    generate_latents(state, latents(model, 2, key=key), GaussianMixing(1.0), chosen)
                )
            state.flush()
        drawn.append(state)
    for one, other in zip(drawn[:2], drawn[3:5], strict=True):
        torch.testing.assert_close(one.u, other.u, rtol=0, atol=1e-10)
        torch.testing.assert_close(one.x, other.x, rtol=0, atol=1e-10)
    torch.testing.assert_close(drawn[2].text_state, drawn[5].text_state, rtol=0, atol=1e-10)


def test_given_images_are_read_as_drawn_ones_are():
    for interleaving in (Stacked, UNSEEN):
        model = built(interleaving)
        states = []
        with torch.no_grad():
            state = GenerationState(model, 1, 40)
            state.read_text(["look"])
            drawn = generate_latents(state, latents(model, 1, key="z"), NoGuidance())
            state.flush()
            states.append(state)
            state = GenerationState(model, 1, 40)
            state.read_text(["look"])
            state.read_image(drawn.u, drawn.x)
            states.append(state)
        for name in ("deep_state", "text_state", "next_index", "place"):
            found, expected = (getattr(state, name) for state in states)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_attention_temperature_guides_a_later_image_too():
    model = built()
    z = latents(model, 2, key="z")

    def second(temperature):
        guidance = AttentionTemperature(LinearGuidance(1.0), temperature, keeps_context=True)
        state = GenerationState(model, 2, 60)
        with torch.no_grad():
            state.read_text(["a red circle", "why?"])
            generate_latents(state, latents(model, 2), NoGuidance())
            state.read_text(["a blue one", "a"])
            drawn = generate_latents(state, z, guidance)
            # the branch is dropped, and leaves no temperature behind
            state.flush()
        return drawn.u

    plain = second(1.0)
    assert not torch.allclose(second(2.0), plain)


def test_what_is_drawn_at_random_is_keyed_by_row_and_turn():
    model = built()

    def written(keys, seed=0):
        state = GenerationState(model, len(keys), 60)
        with torch.no_grad():
            state.read_text(["what is it?"] * len(keys))
            rows = torch.stack(
                list(write_tokens(state, 6, Writing(temperature=3.0), keys=keys, seed=seed)), dim=1
            )
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

    state = GenerationState(model, 2, 60)
    with torch.no_grad():
        state.read_text(["why?", "what is it?"])
        state.flush()
        before = state.next_index
        tokens = torch.stack(list(write_tokens(state, 4, EndsFirstRow())), dim=1)
        state.flush()
    assert tokens[0].tolist() == [end] * 4
    assert (state.next_index - before).tolist() == [1, 4]
    assert state.valid.sum(dim=1).tolist() == state.next_index.tolist()


def test_special_tokens_are_not_written_and_begin_of_image_only_where_one_may_be_drawn():
    model = built()
    special = model.vlm.special
    seen = []

    class Watches(Writing):
        def choose(self, logits, uniform=None):
            seen.append(logits[0].isinf().nonzero()[:, 0].tolist())
            return super().choose(logits)

    with torch.no_grad():
        for may_begin_image in (False, True):
            state = GenerationState(model, 1, 30)
            state.read_text(["why?"])
            next(write_tokens(state, 1, Watches(), may_begin_image=may_begin_image))
    never = [special.pad, special.end_of_image]
    assert sorted(seen[0]) == sorted([*never, special.begin_of_image])
    assert sorted(seen[1]) == sorted(never)


def test_a_sequence_longer_than_its_max_length_is_refused():
    model = built()
    state = GenerationState(model, 1, 5)
    state.read_text(["a red circle"])
    with pytest.raises(UserError, match=r"must fit into max_length of its caches, 5 positions"):
        generate_latents(state, latents(model, 1), NoGuidance())


@pytest.mark.parametrize("interleaving", [TextPrefix, Unconditional])
def test_models_of_one_image_refuse_another_and_text(interleaving):
    model = built(interleaving)
    state = GenerationState(model, 1, 40)
    z = latents(model, 1)
    with torch.no_grad():
        state.read_text(["a red circle"])
        generate_latents(state, z, NoGuidance())
        with pytest.raises(UserError, match=f"{interleaving.__name__} models no image behind an"):
            generate_latents(state, z, NoGuidance())
        with pytest.raises(UserError, match=f"answers questions, got {interleaving.__name__}"):
            next(write_tokens(state, 3))


def test_text_must_follow_something():
    with pytest.raises(UserError, match="text must follow a text or an image"):
        next(write_tokens(GenerationState(built(), 1, 10), 3))


def test_recomputation_packs_what_was_said_and_written():
    model = built()
    recorded = converse(model)
    packed, _ = recomputed(model, recorded)
    for row in range(3):
        valid = recorded.state.valid[row]
        assert packed.is_valid[row].sum() == valid.sum()
        assert packed.index[row, -1] == packed.tokens.shape[1] - 1
