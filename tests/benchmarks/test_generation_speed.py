"""The benchmark of unified generation at tiny sizes: its arms compute the same; it is not timed."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import (
    floor,
    generation,
    generation_arms,
    generation_bytes,
    generation_growth,
    generation_tables,
)
from benchmarks.generation_growth import Clock, Place, Step
from benchmarks.generation_script import CAPTION, QUESTION, Script, Trace, Unending, converse
from pretzel.generation.state import GenerationState
from pretzel.sampling.guidance import GaussianMixing, NoGuidance

QUICK = generation.plans(quick=True, rounds=1)[0]
GUIDED = Script(turns=2, tokens=2, guidance=GaussianMixing(weight=2.0))


@pytest.fixture(scope="module")
def model():
    return generation.built({"model.pretzel.latent": generation.COARSE})


@pytest.fixture(scope="module", autouse=True)
def unmeasured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floor, "rate", lambda device: 1e9)
        patch.setattr(floor, "bandwidth", lambda size, device: 1e9)
        yield


@pytest.fixture(scope="module")
def traces(model):
    others = {"again": generation_arms.reencoding, "none": generation_arms.uncached}
    plan = replace(QUICK, script=GUIDED, others=others)
    return generation.traced(model, plan)  # holds all arms to the same tokens and latents


def test_arms_that_differ_are_refused(model):
    def other(model, script):
        result, trace = generation_arms.ours(model, script)
        return result.roll(1), trace

    plan = replace(QUICK, script=replace(GUIDED, turns=1), others={"wrong": other})
    with pytest.raises(AssertionError, match="ours and wrong differ"):
        generation.traced(model, plan)


def test_other_arms_encode_again_what_ours_encodes_once(model):
    runs = {}
    for arm in (generation_arms.ours, generation_arms.reencoding, generation_arms.uncached):
        lengths = runs[arm.__name__] = []
        # After an arm's own hooks: what is run, not what is asked for.
        run = model.interleaving.run_vlm
        model.interleaving.run_vlm = lambda inputs, *args, run=run, lengths=lengths: (
            lengths.append(inputs.tokens.shape[1]) or run(inputs, *args)
        )
        try:
            arm(model, GUIDED)
        finally:
            del model.interleaving.run_vlm
    # End-of-image waits for what follows, and so does the last token of an answer.
    room, turn = GUIDED.room(model), GUIDED.room(model) // 2
    assert sum(runs["ours"]) == room - 1
    answered = len(model.vlm.encode_text(QUESTION)) + GUIDED.tokens - 1
    anew = answered + (turn - 1) + (turn + answered)
    assert sum(runs["reencoding"]) == room - 1 + anew
    assert runs["uncached"] == list(torch.tensor(runs["ours"]).cumsum(0))


def test_what_comes_first_and_encoding_anew_are_timed(traces):
    for rounds in traces.values():
        (trace,) = rounds  # that of the warm-up is not among them
        firsts = zip(trace.first_token, trace.first_position, trace.turns, strict=True)
        assert all(
            token > 0 and image > 0 and token + image < turn for token, image, turn in firsts
        )
    (again,) = traces["again"]
    assert again.encoding[0] < 1e-3 < min(again.encoding[1:])  # nothing before the first
    images = zip(again.encoding[1::2], again.first_position, strict=True)
    assert all(anew < first for anew, first in images)
    assert not traces["ours"][0].encoding
    assert list(traces) == ["ours", "again", "none"]


def test_steps_are_timed_behind_each_number_of_images(model):
    places = generation_growth.grown(model, GUIDED, (0, 1), 1)
    turn = GUIDED.room(model) // 2
    question, caption = (len(model.vlm.encode_text(text)) for text in (QUESTION, CAPTION))
    assert [(p.kind, p.images, p.length, p.count) for p in places] == [
        ("token", 0, question, 1), ("token", 1, turn + question, 1),
        ("position", 0, caption + 1, 3), ("position", 1, turn + caption + 1, 3),
    ]  # fmt: skip
    for place in places:
        (step,) = place.rounds
        assert 0 < step.attention < step.seconds
        assert (step.to_first == 1) == (place.images == 0)


def test_ratios_of_steps_are_of_one_moment():
    # The second moment runs at a third of the speed, which ratios do not know.
    quick, slow = ([(2.0, 1.0), (5.0, 4.0)], [(6.0, 3.0), (15.0, 12.0)])
    moments = [[[lap] * 3 for lap in moment] for moment in (quick, slow)]
    first, later = generation_growth._steps(moments)
    assert first == Step(seconds=4.0, attention=2.0, to_first=1.0, rest_to_first=1.0)
    assert later == Step(seconds=10.0, attention=8.0, to_first=2.5, rest_to_first=1.0)


def test_all_lengths_have_their_turn_in_every_moment():
    ran = []
    runs = [map(ran.append, [place] * 11) for place in range(3)]
    moments = generation_growth._laps(runs, 11, Clock())
    assert ran == [2] * 8 + [1] * 8 + [0] * 8 + [0] * 3 + [1] * 3 + [2] * 3
    assert [[len(laps) for laps in moment] for moment in moments] == [[8] * 3, [3] * 3]


def test_tables_tell_spreads_over_rounds(model):
    stored = generation_bytes.memory(model, GUIDED)
    rounds = [
        Step(seconds=s, attention=s / 2, to_first=s, rest_to_first=1.0) for s in (2.0, 3.0, 5.0)
    ]
    place = Place(kind="position", images=4, length=100, count=3, rounds=rounds)
    (*_, row) = generation_tables.growth(model, [place], stored)
    assert row.startswith(
        "| 4 | 100 | position | 3000.00 | 0 | 3.00 (2.00-5.00) | 1500.00 | 1.00 (1.00-1.00) |"
    )
    assert f"| VLM | 2 | {GUIDED.room(model)} | 4096 |" in "\n".join(
        generation_tables.memory(stored)
    )
    own, other = (
        Trace(turns=[a, 9.0], first_token=[9.0, b], first_position=[9.0, c], encoding=d)
        for a, b, c, d in ((3.0, 0.1, 0.2, []), (12.0, 0.4, 0.4, [2.0, 1.0, 5.0, 5.0]))
    )
    (*_, row) = generation_tables.comparison({"ours": [own], "other": [other]}, (1,))
    assert row == (
        "| 1 | ours / other | 3 / 12 | 0.25 (0.25-0.25) | 0.25 (0.25-0.25) "
        "| 200 / 400 | 0.50 (0.50-0.50) | 100 / 400 | 0.25 (0.25-0.25) |"
    )


def test_caches_are_weighed_as_they_are_allocated(model):
    stored = generation_bytes.memory(model, GUIDED)
    room, n = GUIDED.room(model), model.latent.num_positions
    assert [(c.name, c.rows, c.positions) for c in stored.caches] == [
        ("VLM", 2, room), ("deep stream", 2, room), ("shallow block 1", 1, n),
        ("shallow block 2", 1, n),
    ]  # fmt: skip
    # Keys and values, float32: four layers of 128 channels, four, one, one.
    assert [c.per_position for c in stored.caches] == [4096, 4096, 1024, 1024]
    assert stored.streams == room * 8192
    assert stored.alive >= 2 * room * 8192
    plain = generation_bytes.memory(model, replace(GUIDED, guidance=NoGuidance()))
    assert [c.rows for c in plain.caches] == [1, 1, 1, 1]
    assert plain.alive < stored.alive


def test_floor_reads_each_weight_once_and_of_the_null_branch_its_image_alone(model):
    stored = generation_bytes.memory(model, GUIDED)
    own = {kind: generation_bytes.weights(model, kind) for kind in ("token", "position")}
    for kind, positions in (("token", 10 + 1), ("position", 10 + 1 + 2)):
        place = Place(kind=kind, images=0, length=10, count=2, rounds=[])
        needed = generation_bytes.step_floor(model, place, stored)
        assert needed.num_bytes == own[kind] + positions * 8192
    # What is left out are the parts of the other kind: the head, and the skips of text.
    vlm = sum(p.nbytes for p in model.vlm.decoder_layers().parameters())
    deep = sum(p.nbytes for p in model.deep.parameters())
    assert vlm + deep < own["position"] < vlm + deep + 2**20


def test_answers_do_not_end_by_themselves():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert Unending(end=1).choose(logits).tolist() == [2]
    assert Unending(end=0).choose(logits).tolist() == [1]


def test_attention_is_timed_and_left_as_it_was():
    clock, attend = Clock(), F.scaled_dot_product_attention
    x = torch.randn(1, 1, 64, 8)
    with clock.running():
        actual = []
        seconds, attention = clock.lap(
            lambda: actual.append(F.scaled_dot_product_attention(x, x, x))
        )
    torch.testing.assert_close(actual[0], attend(x, x, x))
    assert 0 < attention < seconds
    assert F.scaled_dot_product_attention is attend


def test_the_script_fills_its_room(model):
    state = GenerationState(model, 1, GUIDED.room(model))
    converse(state, GUIDED)
    with torch.inference_mode():
        state.flush()
    assert state.length == state.max_length
