"""The laws of cached generation: the same numbers as without caches, nothing computed twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from pretzel.interleave.base import StreamInputs
from pretzel.model import Pretzel, stream_inputs
from pretzel.packing import PackedBatch
from pretzel.sampling.cache import KVCache
from pretzel.sampling.guidance import Gaussian, GaussianMixing, Guidance, NoGuidance
from pretzel.sampling.samplers import Jacobi
from pretzel.sampling.streams import prompt_document, sample_u
from pretzel.sampling.text import answer
from pretzel.sequence import Document, Image, Text
from pretzel.testing.case import FP64, Case
from pretzel.testing.deviation import Deviation, require, within, worst_of
from pretzel.testing.models import latents, parameters_of_u
from pretzel.testing.tiny import PROMPTS
from pretzel.typing import Float, Int, Tensor

QUESTIONS = ("what color is the shape?", "is it?", "is a very small triangle present?", "why?")


def with_image(documents: Sequence[Document]) -> list[Document]:
    """Return documents with an image at their end."""
    return [Document(key=d.key, segments=(*d.segments, Image())) for d in documents]


def chunks_equal_the_whole(case: Case[Pretzel]) -> Deviation:
    """Text at once, then the image position by position with caches, gives other states."""
    model = case.build()
    documents = with_image([prompt_document(prompt) for prompt in PROMPTS])
    viewed = [model.interleaving.view(document) for document in documents]
    packed = model.packer(viewed, pad="left")
    u = latents(model, len(documents), key="u")
    inputs = _masked(packed, u)
    begin = int(packed.is_image[0].int().argmax())
    # Where no text follows an image, end-of-image is not run either.
    length = packed.tokens.shape[1] - (not model.interleaving.answers)
    caches = model.interleaving.new_caches(model.vlm, model.deep, len(documents), length)
    edges = [0, *range(begin, length + 1)]
    with torch.no_grad():
        whole = model.interleaving(inputs, model.vlm, model.deep)
        chunks = [
            model.interleaving(_cut(inputs, start, end), model.vlm, model.deep, caches)
            for start, end in pairwise(edges)
        ]
    valid = packed.is_valid[:, :length]
    deep = torch.cat([chunk.deep for chunk in chunks], dim=1)
    expected = whole.deep[:, :length]
    results = [within(deep[valid], expected[valid], FP64, "states of the deep stream")]
    if whole.text is not None:
        text = torch.cat([chunk.text for chunk in chunks], dim=1)
        results.append(within(text[valid], whole.text[valid], FP64, "states for text"))
    return worst_of(results)


def samples_map_back_to_their_noise(case: Case[Pretzel]) -> Deviation:
    """A sampled u does not map back to its noise in one uncached pass."""
    model = case.build()
    prompts = [prompt_document(prompt) for prompt in PROMPTS]
    z = latents(model, len(prompts), key="z")
    with torch.no_grad():
        u = sample_u(model, prompts, z, NoGuidance()).x
        params = parameters_of_u(model, with_image(prompts), u)
        found, _ = model.deep.transform.forward(u, params)
    return within(found, z, FP64, "z of samples")


def guided_samples_mix_uncached_branches(case: Case[Pretzel]) -> Deviation:
    """Guided sampling does not use the mixture of both branches as they are without caches."""
    model = case.build()
    transform = model.deep.transform
    if not (model.interleaving.reads_text and transform.is_affine):
        return Deviation(what="not guided", error=0.0, tolerance=0.0)
    prompts = [prompt_document(prompt) for prompt in PROMPTS]
    nulls = [prompt_document(prompt, dropped=True) for prompt in PROMPTS]
    z, guidance = latents(model, len(prompts), key="z"), GaussianMixing(weight=1.5)
    with torch.no_grad():
        u = sample_u(model, prompts, z, guidance, nulls).x
        branches = []
        for rows in (prompts, nulls):
            params = parameters_of_u(model, with_image(rows), u)
            mu, sigma = transform.location_and_scale(params)
            branches.append(Gaussian(mu=mu, sigma=sigma))
        mixed = guidance.mix(branches[0], branches[1], 1.5)
    return within((u - mixed.mu) / mixed.sigma, z, FP64, "z of guided samples")


def rows_generate_independently(case: Case[Pretzel]) -> Deviation:
    """A prompt's sample depends on the other prompts of its batch, or on their lengths."""
    model = case.build()
    prompts = [prompt_document(prompt) for prompt in PROMPTS]
    z = latents(model, len(prompts), key="z")
    with torch.no_grad():
        together = sample_u(model, prompts, z, NoGuidance()).x
        alone = [sample_u(model, [p], z[i : i + 1], NoGuidance()).x for i, p in enumerate(prompts)]
    return within(torch.cat(alone), together, FP64, "samples of single prompts")


def parallel_decoding_equals_sequential(case: Case[Pretzel]) -> Deviation:
    """Block-Jacobi through both streams gives other samples, or leaves other caches behind."""
    model = case.build()
    prompts = [prompt_document(prompt) for prompt in PROMPTS]
    nulls = [prompt_document(prompt, dropped=True) for prompt in PROMPTS]
    guided = model.reads_text and model.deep.transform.is_affine
    guidance: Guidance = GaussianMixing(weight=1.5) if guided else NoGuidance()
    z = latents(model, len(prompts), key="z")
    with torch.no_grad():
        expected = sample_u(model, prompts, z, guidance, nulls if guided else None)
        jacobi = Jacobi(block_size=2, tolerance=0.0)
        found = sample_u(model, prompts, z, guidance, nulls if guided else None, jacobi)
    return within(found.x, expected.x, FP64, "u by block-Jacobi")


def positions_are_committed_once(case: Case[Pretzel]) -> Deviation:
    """Generating an image runs a stream over a position twice, or not at all."""
    model = case.build()
    prompts = [prompt_document(prompt) for prompt in PROMPTS]
    nulls = [prompt_document(prompt, dropped=True) for prompt in PROMPTS]
    z = latents(model, len(prompts), key="z")
    n = model.latent.num_positions
    for guidance, null_documents in ((NoGuidance(), None), (GaussianMixing(weight=2.0), nulls)):
        counts = {"deep": _Count(), "vlm": _Count()}
        hooks = [
            stream.register_forward_pre_hook(count, with_kwargs=True)
            for stream, count in ((model.deep, counts["deep"]), (model.vlm, counts["vlm"]))
        ]
        with torch.no_grad():
            sample_u(model, prompts, z, guidance, null_documents)
        for hook in hooks:
            hook.remove()
        packed = model.packer(
            [Document(key="", segments=model.interleaving.view(d).segments[:-1])
             for d in with_image(prompts)],
            open_image=True,
        )  # fmt: skip
        width = packed.tokens.shape[1]
        deep, vlm = counts["deep"].positions, counts["vlm"].positions
        require(deep == width + n, f"the deep stream ran over {deep} positions, not {width + n}")
        cache = counts["deep"].cache
        assert isinstance(cache, KVCache)
        require(
            cache.length == width + n,
            f"the deep cache holds {cache.length} positions, not {width + n}",
        )
        allowed = {width + n} if counts["vlm"].cache is not None else {0, width}
        require(vlm in allowed, f"the VLM ran over {vlm} positions, not {sorted(allowed)}")
    return Deviation(what="each position once per stream", error=0.0, tolerance=0.0)


def answers_equal_uncached_ones(case: Case[Pretzel]) -> Deviation:
    """Answers with caches differ from those recomputed from scratch for every token."""
    model = case.build()
    if not model.interleaving.answers:
        return Deviation(what="no image-to-text", error=0.0, tolerance=0.0)
    x = latents(model, 2)
    of_question = torch.tensor([1, 0, 1, 0])
    found = answer(model, x, of_question, QUESTIONS, max_tokens=6)
    with torch.no_grad():
        u = model.shallow(x).z
        expected = [
            _answer_uncached(model, u[i : i + 1], question, 6)
            for i, question in zip(of_question.tolist(), QUESTIONS, strict=True)
        ]
    require(found == expected, f"cached answers {found}, uncached {expected}")
    return Deviation(what="cached answers = uncached", error=0.0, tolerance=0.0)


def _answer_uncached(
    model: Pretzel, u: Float[Tensor, "1 n d"], question: str, max_tokens: int
) -> str:
    packed = model.packer([Document(key="", segments=(Image(), Text(content=question)))])
    generated: list[int] = []
    while len(generated) < max_tokens:
        outputs = model.interleaving(stream_inputs(packed, u), model.vlm, model.deep)
        token = model.vlm.logits(outputs.text[:, -1]).argmax(dim=-1)
        if int(token) == model.vlm.special.end_of_text:
            break
        generated.append(int(token))
        packed = _append(packed, token)
    return model.vlm.decode_text(generated)


def _append(packed: PackedBatch, token: Int[Tensor, " b"]) -> PackedBatch:
    place = packed.positions[:, -1:].clone()
    place[..., 0] += 1
    return PackedBatch(
        tokens=torch.cat([packed.tokens, token[:, None]], dim=1),
        is_image=torch.cat([packed.is_image, torch.zeros(1, 1, dtype=torch.bool)], dim=1),
        is_valid=torch.cat([packed.is_valid, torch.ones(1, 1, dtype=torch.bool)], dim=1),
        index=torch.cat([packed.index, packed.index[:, -1:] + 1], dim=1),
        positions=torch.cat([packed.positions, place], dim=1),
        targets=torch.cat([packed.targets, packed.targets[:, -1:]], dim=1),
    )


def _masked(packed: PackedBatch, u: Float[Tensor, "m n d"]) -> StreamInputs:
    dense = u.new_zeros(*packed.tokens.shape, u.shape[-1])
    dense[packed.is_image] = u.flatten(0, 1)
    return StreamInputs(
        tokens=packed.tokens,
        is_image=packed.is_image,
        u=dense,
        index=packed.index,
        positions=packed.positions,
        mask=packed.mask,
    )


def _cut(inputs: StreamInputs, start: int, end: int) -> StreamInputs:
    assert inputs.mask is not None
    return StreamInputs(
        tokens=inputs.tokens[:, start:end],
        is_image=inputs.is_image[:, start:end],
        u=inputs.u[:, start:end],
        index=inputs.index[:, start:end],
        positions=inputs.positions[:, start:end],
        mask=inputs.mask[:, :, start:end, :end],
    )


@dataclass
class _Count:
    """Counts the positions that enter a stream."""

    positions: int = 0
    cache: Any = field(default=None)

    def __call__(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.positions += args[0].shape[1]
        found = kwargs.get("cache", args[3] if len(args) > 3 else None)
        self.cache = found if found is not None else self.cache
