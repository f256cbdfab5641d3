"""Bytes of weights and of caches in unified generation: what is held, and what a step must read."""

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.floor import Floor
from benchmarks.generation_growth import Place
from benchmarks.generation_script import CAPTION, QUESTION, Script, noise
from pretzel.flow import AFBlock
from pretzel.flow.decoding import Layout
from pretzel.generation.deep_inversion import DeepInversion
from pretzel.generation.latents import generate_latents
from pretzel.generation.state import GenerationState
from pretzel.interleave import Stacked
from pretzel.model import Pretzel
from pretzel.sampling.inversion import BlockInversion, Inversion
from pretzel.sampling.samplers import Sequential, Work
from pretzel.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class CacheBytes:
    """One cache, as it is allocated while an image is drawn.

    Attributes:
        name: Of the stream or block.
        rows: Rows, that of the null branch included.
        positions: Positions of a row.
        num_bytes: Of all its tensors.
    """

    name: str
    rows: int
    positions: int
    num_bytes: int

    @property
    def per_position(self) -> float:
        """Bytes of one position of one row."""
        return self.num_bytes / self.rows / self.positions


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of generation.

    Attributes:
        streams: Bytes of both streams' caches between images, where there is no null branch.
        caches: Caches while an image is generated, the shallow blocks' one after the other.
        alive: Bytes of all tensors that generation has added while the deep stream samples.
    """

    streams: int
    caches: Sequence[CacheBytes]
    alive: int


class Weighing(Sequential):
    """One position after the other, the caches weighed first.

    Attributes:
        weighed: Caches, in the order of sampling.
        alive: Bytes of all tensors, while the deep stream samples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weighed: list[CacheBytes] = []
        self.alive = 0

    def solve(self, inversion: Inversion, block: int) -> Work:
        """Weigh, then step through the positions."""
        rows, n = len(inversion.branches.rows), inversion.num_positions
        if isinstance(inversion, DeepInversion):
            caches, length = inversion.state.caches, inversion.state.max_length
            assert caches is not None
            for name, cache in (("VLM", caches.vlm), ("deep stream", caches.deep)):
                self._add(name, rows, length, cache)
            self.alive = alive()
        elif isinstance(inversion, BlockInversion) and isinstance(inversion.block, AFBlock):
            self._add(f"shallow block {block}", rows, n, inversion.cache.network)
        return super().solve(inversion, block)

    def _add(self, name: str, rows: int, positions: int, cache: object) -> None:
        total = sum(storages(cache).values())
        self.weighed.append(CacheBytes(name=name, rows=rows, positions=positions, num_bytes=total))


def memory(model: Pretzel, script: Script) -> Memory:
    """Return the memory of a generation with caches for the whole conversation."""
    before = alive()
    state = GenerationState(model, 1, script.room(model))
    sampler = Weighing()
    with torch.inference_mode():
        state.read_text([QUESTION])
        state.flush()  # as behind a first image: the caches are there when an image begins
        state.read_text([CAPTION])
        streams = sum(storages(state.caches).values())
        generate_latents(state, noise(model, 0), script.guidance, sampler)
    return Memory(streams=streams, caches=sampler.weighed, alive=sampler.alive - before)


def storages(of: object) -> dict[int, int]:
    """Return the bytes of each allocation that an object's tensors lie in, weights left out."""
    allocations: dict[int, int] = {}
    seen: set[int] = set()
    parts = [of]
    while parts:
        part = parts.pop()
        if id(part) in seen or isinstance(part, (nn.Module, Layout)):
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            storage = part.untyped_storage()
            allocations[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, Mapping):
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            parts += vars(part).values()
    return allocations


def alive() -> int:
    """Return the bytes of all tensors of this process."""
    tensors = [
        item
        for item in gc.get_objects()
        if issubclass(type(item), Tensor) and not item.is_meta and item.layout == torch.strided
    ]
    return sum(storages(tensors).values())


def weights(model: Pretzel, kind: str) -> int:
    """Return the bytes of the weights that one step cannot do without.

    Args:
        model: A model whose interleaving is Stacked.
        kind: ``token`` or ``position``.
    """
    interleaving, vlm, deep = model.interleaving, model.vlm, model.deep
    assert isinstance(interleaving, Stacked)
    parts: list[nn.Module | None] = [
        vlm.decoder_layers(), vlm.final_norm, deep.conditioner, interleaving.whitening
    ]  # fmt: skip
    if kind == "position":
        parts += [interleaving.adapter, interleaving.vlm_skip, deep.input, deep.head]
        return _bytes(parts)
    head = vlm.vocab_size * vlm.hidden_size * next(vlm.parameters()).element_size()
    return _bytes([*parts, interleaving.text_input, interleaving.deep_skip]) + head


def _bytes(parts: Iterable[nn.Module | None]) -> int:
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for part in parts
        if part is not None
        for tensor in (*part.parameters(), *part.buffers())
    }
    return sum(tensors.values())


def step_floor(model: Pretzel, place: Place, weighed: Memory) -> Floor:
    """Return what the middle one of the steps at a place must compute and read.

    Of the null branch nothing before begin-of-image is needed.
    """
    steps_before = place.count / 2
    streams = [cache for cache in weighed.caches if "shallow" not in cache.name]
    rows = streams[0].rows if place.kind == "position" else 1
    positions = place.length + steps_before + (rows - 1) * (1 + steps_before)
    read = weights(model, place.kind)
    num_bytes = read + positions * sum(cache.per_position for cache in streams)
    return Floor(
        flops=2 * rows * read / 4,
        num_bytes=num_bytes,
        per_step=num_bytes,
        device=torch.device("cpu"),
    )
