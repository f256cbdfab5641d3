"""The laws of cached generation: the same numbers as without caches, nothing computed twice."""

from dataclasses import replace
from itertools import pairwise, product

import torch

from pretzel.generation.answers import answer
from pretzel.generation.deep_inversion import generate_u
from pretzel.generation.latents import sample_u, state_behind
from pretzel.generation.state import GenerationState
from pretzel.interleave.base import StreamInputs
from pretzel.interleave.vision_interleaving import VisionInterleaving
from pretzel.model import Pretzel, stream_inputs
from pretzel.sampling.guidance import Gaussian, GaussianMixing, Guidance, NoGuidance
from pretzel.sampling.samplers import Jacobi, Sequential
from pretzel.sequence.document import Document, Image, Text, caption_document
from pretzel.testing.deviation import Deviation, require, unmeasured, within, worst_of
from pretzel.testing.law_case import FP64, PERTURBED_EVAL, Case, tried_in
from pretzel.testing.laws.conversations import (
    Counts,
    begins_of_image,
    converse,
    counted,
    guidance_for,
    recomputed,
)
from pretzel.testing.laws.models import latents, parameters_of_u
from pretzel.testing.tiny_model import PROMPTS
from pretzel.typing import Float, Tensor

QUESTIONS = ("what color is the shape?", "is it?", "is a very small triangle present?", "why?")


def captions(*, dropped: bool = False) -> list[Document]:
    """Return the prompts, each with an image behind; ``dropped`` for the null context."""
    return [caption_document(prompt, dropped=dropped) for prompt in PROMPTS]


def chunks_equal_the_whole(case: Case[Pretzel]) -> Deviation:
    """Text at once, then the image position by position with caches, gives other states."""
    model = case.build()
    documents = captions()
    viewed = [model.interleaving.view(document) for document in documents]
    packed = model.packer(viewed, pad="left")
    u = latents(model, len(documents), key="u")
    x = latents(model, len(documents))
    inputs = replace(stream_inputs(packed, u, model.vision_features(u, x)), mask=packed.mask)
    begin = int(packed.is_image[0].int().argmax())
    # Where no text follows an image, end-of-image is not run either.
    length = packed.tokens.shape[1] - (not model.interleaving.answers)
    caches = model.interleaving.new_caches(model.vlm, model.deep, len(documents), length)
    edges = [0, *range(begin, length + 1)]
    with torch.no_grad():
        whole = model.interleaving(inputs, model.vlm, model.deep)
        chunks = []
        for start, end in pairwise(edges):
            if inputs.vision is not None and start == begin + u.shape[1]:
                # What is not known before the image is complete is seen behind it.
                image = _cut(inputs, begin, start, with_vision=True)
                assert isinstance(model.interleaving, VisionInterleaving)
                model.interleaving.commit_image(image, model.vlm, caches)
            chunk = _cut(inputs, start, end)
            chunks.append(model.interleaving(chunk, model.vlm, model.deep, caches))
    valid = packed.is_valid[:, :length]
    deep = torch.cat([chunk.deep for chunk in chunks], dim=1)
    expected = whole.deep[:, :length]
    results = [within(deep[valid], expected[valid], FP64, "states of the deep stream")]
    if whole.text is not None:
        with_text = [i for i, chunk in enumerate(chunks) if chunk.text is not None]
        columns = [column for i in with_text for column in range(edges[i], edges[i + 1])]
        valid = valid[:, columns]
        text = torch.cat([chunks[i].text for i in with_text], dim=1)
        expected = whole.text[:, columns]
        results.append(within(text[valid], expected[valid], FP64, "states for text"))
    return worst_of(*results)


def samples_map_back_to_their_noise(case: Case[Pretzel]) -> Deviation:
    """A sampled u does not map back to its noise in one uncached pass."""
    model = case.build()
    z = latents(model, len(PROMPTS), key="z")
    with torch.no_grad():
        u = sample_u(model, PROMPTS, z, NoGuidance()).x
        params = parameters_of_u(model, captions(), u)
        mapped_back, _ = model.deep.transform.forward(u, params)
    return within(mapped_back, z, FP64, "z of samples")


def guided_samples_mix_uncached_branches(case: Case[Pretzel]) -> Deviation:
    """Guided sampling does not use the mixture of both branches as they are without caches."""
    model = case.build()
    transform = model.deep.transform
    if not (model.interleaving.reads_text and transform.is_affine):
        return unmeasured("not guided")
    z, guidance = latents(model, len(PROMPTS), key="z"), GaussianMixing(weight=1.5)
    with torch.no_grad():
        u = sample_u(model, PROMPTS, z, guidance).x
        branches = []
        for dropped in (False, True):
            params = parameters_of_u(model, captions(dropped=dropped), u)
            mu, sigma = transform.location_and_scale(params)
            branches.append(Gaussian(mu=mu, sigma=sigma))
        mixed = guidance.mix(branches[0], branches[1], 1.5)
    return within((u - mixed.mu) / mixed.sigma, z, FP64, "z of guided samples")


def rows_generate_independently(case: Case[Pretzel]) -> Deviation:
    """A prompt's sample depends on the other prompts of its batch, or on their lengths."""
    model = case.build()
    z = latents(model, len(PROMPTS), key="z")
    with torch.no_grad():
        together = sample_u(model, PROMPTS, z, NoGuidance()).x
        alone = [sample_u(model, [p], z[i : i + 1], NoGuidance()).x for i, p in enumerate(PROMPTS)]
    return within(torch.cat(alone), together, FP64, "samples of single prompts")


def parallel_decoding_equals_sequential(case: Case[Pretzel]) -> Deviation:
    """Block-Jacobi through both streams gives other samples."""
    model = case.build()
    guided = model.reads_text and model.deep.transform.is_affine
    guidance: Guidance = GaussianMixing(weight=1.5) if guided else NoGuidance()
    z = latents(model, len(PROMPTS), key="z")
    with torch.no_grad():
        expected = sample_u(model, PROMPTS, z, guidance)
        results = []
        for size in (1, 3):  # many chunks, and one that the positions do not fill
            jacobi = Jacobi(block_size=size, tolerance=0.0)
            parallel = sample_u(model, PROMPTS, z, guidance, jacobi)
            what = f"u by block-Jacobi of {size} positions"
            results.append(within(parallel.x, expected.x, FP64, what))
    return worst_of(*results)


@tried_in(PERTURBED_EVAL)
def positions_are_committed_once(case: Case[Pretzel]) -> Deviation:
    """Generating an image runs a stream over a position twice, or not at all.

    By block-Jacobi it runs provisionally too, as often as is reported, and that leaves the caches.
    """
    model = case.build()
    z = latents(model, len(PROMPTS), key="z")
    n = model.latent.num_positions
    viewed = [model.interleaving.view(document) for document in captions()]
    whole = [Document(key="", segments=document.segments[:-1]) for document in viewed]
    width = model.packer(whole, open_image=True).tokens.shape[1]
    once = {Sequential(): n, Jacobi(block_size=3, tolerance=0.0): -(-n // 3)}
    for guidance, sampler in product((NoGuidance(), guidance_for(model)), once):
        state = state_behind(model, PROMPTS)
        with torch.no_grad(), counted(model) as counts:
            (work,) = generate_u(state, z, guidance, sampler).work
        committing = work.evaluations - work.provisional
        what = f"{committing} evaluations are said to commit, not {once[sampler]}"
        require(committing == once[sampler], what)
        _require_counts(counts, state, width + n, prefix=width, lags=n)
    return unmeasured("each position once per stream")


@tried_in(PERTURBED_EVAL)
def conversations_commit_positions_once(case: Case[Pretzel]) -> Deviation:
    """Going on after an image or an answer runs a stream over a position twice, or not at all."""
    model = case.build()
    with counted(model) as counts:
        recorded = converse(model)
    state = recorded.state
    n = model.latent.num_positions
    images = sum(part is None for part in recorded.parts)
    texts = [part for part in recorded.parts if part is not None]
    columns = sum(max(len(row) for row in part) for part in texts) + images * (1 + n)
    # End-of-image waits for what follows it.
    columns += images if model.interleaving.answers else 0
    what = f"{columns} positions with padding were generated, the state has {state.length}"
    require(state.length == columns, what)
    _require_counts(counts, state, columns, prefix=columns - n, lags=0)
    for row in range(state.num_rows):
        positions = sum(len(part[row]) for part in texts) + images * (2 + n)
        positions -= 0 if model.interleaving.answers else 1
        valid = int(state.valid[row, :columns].sum())
        require(valid == positions, f"row {row} attends {valid} positions, not {positions}")
    return unmeasured("each position once per stream")


def _require_counts(
    counts: Counts, state: GenerationState, columns: int, *, prefix: int, lags: int
) -> None:
    """Hold streams and caches to a number of columns of the whole sequence.

    Args:
        counts: Columns that ran.
        state: The state afterwards.
        columns: Columns of the whole sequence.
        prefix: Those before the image, where the VLM reads no more.
        lags: Those of an image that has not been ended, which the VLM may not yet have seen.
    """
    interleaving, caches = state.model.interleaving, state.caches
    assert caches is not None
    in_vlm, run = {0, prefix}, counts.vlm
    if interleaving.feeds_vlm:
        vision_input = interleaving.vision_input
        reads_along = vision_input is None or vision_input.is_causal
        in_vlm = {columns - (0 if reads_along else lags)}
        run -= counts.taken_back if reads_along else 0
        assert caches.vlm is not None
        cached = caches.vlm.length
        require(cached in in_vlm, f"the VLM's cache holds {cached} positions, not {sorted(in_vlm)}")
    require(run in in_vlm, f"the VLM ran over {run} positions, not {sorted(in_vlm)}")
    if counts.deep == 0 and run == columns:
        return  # the flow's weights are in the VLM's layers: there is but one stream
    run = counts.deep - counts.taken_back
    require(run == columns, f"the deep stream ran over {run} positions, not {columns}")
    cached = caches.deep.length
    require(cached == columns, f"the deep cache holds {cached} positions, not {columns}")


@tried_in(PERTURBED_EVAL)
def conversations_equal_recomputation(case: Case[Pretzel]) -> Deviation:
    """With caches, logits, mu or sigma of a conversation are not those computed from scratch."""
    model = case.build()
    recorded = converse(model)
    columns = recorded.state.length
    rows = recorded.state.num_rows
    is_image = torch.cat([inputs.is_image[:rows] for inputs in recorded.inputs], dim=1)
    deep = torch.cat([outputs.deep[:rows] for outputs in recorded.outputs], dim=1)
    results = []
    packed, whole = recomputed(model, recorded)
    for row in range(rows):
        valid = recorded.state.valid[row, :columns]
        cached, length = deep[row][valid][None], int(valid.sum())
        expected = whole.deep[row : row + 1, :length]
        results.append(within(cached, expected, FP64, "states of the deep stream"))
        before = packed.is_image[row : row + 1, 1:length]
        moments = (_moments(model, states[:, :-1][before]) for states in (cached, expected))
        for name, one, other in zip(("mu", "sigma"), *moments, strict=True):
            results.append(within(one, other, FP64, name))
        if whole.text is None or not model.interleaving.answers:
            continue
        # Of an image that is not seen before it is complete, there are no states for text.
        none = whole.text.new_zeros(rows, columns, whole.text.shape[-1])
        texts = [
            none[:, : outputs.deep.shape[1]] if outputs.text is None else outputs.text[:rows]
            for outputs in recorded.outputs
        ]
        text = torch.cat(texts, dim=1)
        words = ~is_image[row][valid]
        actual, expected = (
            model.interleaving.logits(states[words], model.vlm)
            for states in (text[row][valid], whole.text[row, :length])
        )
        results.append(within(actual, expected, FP64, "logits"))
    return worst_of(*results)


@tried_in(PERTURBED_EVAL)
def null_branches_equal_recomputation(case: Case[Pretzel]) -> Deviation:
    """The null branch attends what stands before begin-of-image, or outlives its image."""
    model = case.build()
    recorded = converse(model)
    rows = recorded.state.num_rows
    if isinstance(guidance_for(model), NoGuidance):
        return unmeasured("not guided")
    n = model.latent.num_positions
    chunks = zip(recorded.inputs, recorded.outputs, strict=True)
    guided = [(inputs.u[:, -1], outputs.deep) for inputs, outputs in chunks
              if len(outputs.deep) > rows]  # fmt: skip
    images = len(recorded.images)
    require(
        len(guided) == images * (1 + n),
        f"null branches ran {len(guided)} times, not {images * (1 + n)}: for begin-of-image and "
        "each position of every image",
    )
    results = []
    for image in range(images):
        chunks_of_image = guided[image * (1 + n) : (image + 1) * (1 + n)]
        null = torch.cat([deep[rows:, -1:] for _, deep in chunks_of_image], dim=1)
        packed, whole = recomputed(model, recorded, null_of=image)
        for row, begin in enumerate(begins_of_image(packed, n, image)):
            expected = whole.deep[row, begin : begin + 1 + n]
            results.append(within(null[row], expected, FP64, "states of the null branch"))
            entered = torch.stack([u[rows + row] for u, _ in chunks_of_image[1:]])
            results.append(within(entered, recorded.images[image].u[row], 0.0, "guided u_n"))
    return worst_of(*results)


@tried_in(PERTURBED_EVAL)
def conversations_of_rows_are_independent(case: Case[Pretzel]) -> Deviation:
    """Images or text of a row depend on the rows beside it, or on their lengths."""
    model = case.build()
    together = converse(model)
    row = 2  # the one with the most padding
    alone = converse(model, rows=(row,))
    own = [part and part[0] for part in alone.parts]
    expected = [part and part[row] for part in together.parts]
    require(own == expected, f"row {row} alone is {own}, with others {expected}")
    results = []
    for images, one in zip(together.images, alone.images, strict=True):
        results.append(within(one.u[0], images.u[row], FP64, "u of a row alone"))
        results.append(within(one.x[0], images.x[row], FP64, "x of a row alone"))
    return worst_of(*results)


def _moments(model: Pretzel, before: Float[Tensor, "k w"]) -> tuple[Tensor, Tensor]:
    """Return mu and sigma by the states before; raw parameters where there are none such."""
    n = model.latent.num_positions
    params = model.deep.params(before.view(-1, n, before.shape[-1]))
    if not model.deep.transform.is_affine:
        return params, params
    return model.deep.transform.location_and_scale(params)


def answers_equal_uncached_ones(case: Case[Pretzel]) -> Deviation:
    """Answers with caches differ from those recomputed from scratch for every token."""
    model = case.build()
    if not model.interleaving.answers:
        return unmeasured("no image-to-text")
    x = latents(model, 2)
    of_question = torch.tensor([1, 0, 1, 0])
    cached = answer(model, x, of_question, QUESTIONS, max_tokens=6)
    with torch.no_grad():
        u = model.shallow(x).z
        expected = [
            _answer_uncached(model, u[i : i + 1], x[i : i + 1], question, 6)
            for i, question in zip(of_question.tolist(), QUESTIONS, strict=True)
        ]
    require(cached == expected, f"cached answers {cached}, uncached {expected}")
    return unmeasured("cached answers = uncached")


def _answer_uncached(
    model: Pretzel, u: Float[Tensor, "1 n d"], x: Float[Tensor, "1 n d"], question: str,
    max_tokens: int,
) -> str:  # fmt: skip
    special = model.vlm.special
    ruled_out = {special.pad, special.begin_of_image, special.end_of_image} - {special.end_of_text}
    tokens: tuple[int, ...] = ()
    while len(tokens) < max_tokens:
        texts = (Text(content=question), Text(content="", tokens=tokens))
        packed = model.packer([Document(key="", segments=(Image(), *texts))])
        inputs = stream_inputs(packed, u, model.vision_features(u, x))
        outputs = model.interleaving(inputs, model.vlm, model.deep)
        logits = model.interleaving.logits(outputs.text[:, -1], model.vlm)
        logits[:, sorted(ruled_out)] = -torch.inf
        token = int(logits.argmax(dim=-1))
        if token == special.end_of_text:
            break
        tokens = (*tokens, token)
    return model.vlm.decode_text(tokens)


def _cut(inputs: StreamInputs, start: int, end: int, *, with_vision: bool = False) -> StreamInputs:
    assert inputs.mask is not None
    return StreamInputs(
        tokens=inputs.tokens[:, start:end],
        is_image=inputs.is_image[:, start:end],
        u=inputs.u[:, start:end],
        index=inputs.index[:, start:end],
        positions=inputs.positions[:, start:end],
        mask=inputs.mask[:, :, start:end, :end],
        vision=inputs.vision[:, start:end] if with_vision and inputs.vision is not None else None,
    )
