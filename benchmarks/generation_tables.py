"""Tables of times and bytes of unified generation."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from benchmarks import generation_bytes
from benchmarks.generation_bytes import Memory
from benchmarks.generation_growth import Place
from benchmarks.generation_script import Trace
from benchmarks.measure import Ratio
from pretzel.model import Pretzel


def spread(ratios: Iterable[float]) -> Ratio:
    """Return the median of ratios, and the smallest and largest."""
    values = list(ratios)
    return Ratio(median=statistics.median(values), low=min(values), high=max(values))


def growth(model: Pretzel, places: Sequence[Place], usage: Memory) -> list[str]:
    """Tell what steps take as the sequence grows, beside what they must take."""
    lines = [
        "| behind images | length | of a | ms | per s | to the first | of it attention, ms "
        "| the rest to the first | floor, ms | over the floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for place in places:
        rounds = place.rounds
        seconds = statistics.median(step.seconds for step in rounds)
        attention = statistics.median(step.attention for step in rounds)
        floor = generation_bytes.step_floor(model, place, usage).seconds
        cells = (
            place.images, place.length, place.kind, f"{seconds * 1e3:.2f}", f"{1 / seconds:.0f}",
            spread(step.to_first for step in rounds), f"{attention * 1e3:.2f}",
            spread(step.rest_to_first for step in rounds), f"{floor * 1e3:.2f}",
            f"{seconds / floor:.1f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def comparison(traces: Mapping[str, Sequence[Trace]], images: Sequence[int]) -> list[str]:
    """Tell what conversations with so many images take, the first arm beside the others."""
    ours, *others = traces
    lines = [
        f"| images | {ours} / other | conversation, CPU s | ratio | of the other's, encoding anew "
        "| first position behind them, ms | ratio | first token, ms | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in others:
        pairs = list(zip(traces[ours], traces[name], strict=True))
        for number in images:
            totals = [(sum(a.turns[:number]), sum(b.turns[:number])) for a, b in pairs]
            positions = [(a.first_position[number], b.first_position[number]) for a, b in pairs]
            tokens = [(a.first_token[number], b.first_token[number]) for a, b in pairs]
            cells = [*_compared(totals, 1), "-", *_compared(positions), *_compared(tokens)]
            if all(b.encoding for _, b in pairs):
                anew = [sum(b.encoding[: 2 * number]) / sum(b.turns[:number]) for _, b in pairs]
                cells[2] = str(spread(anew))
            lines.append(f"| {number} | {ours} / {name} | {' | '.join(cells)} |")
    return lines


def _compared(pairs: Sequence[tuple[float, float]], scale: float = 1e3) -> tuple[str, str]:
    medians = [statistics.median(values) * scale for values in zip(*pairs, strict=True)]
    text = " / ".join(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in medians)
    return text, str(spread(ours / other for ours, other in pairs))


def memory(usage: Memory) -> list[str]:
    """Tell what the caches take."""
    lines = [
        "| cache while an image is drawn | rows | positions | bytes a position of a row | MiB |",
        "|---|---|---|---|---|",
    ]
    for cache in usage.caches:
        lines.append(
            f"| {cache.name} | {cache.rows} | {cache.positions} | {cache.per_position:.0f} "
            f"| {cache.num_bytes / 2**20:.2f} |"
        )
    return [
        *lines,
        "",
        f"Between images both streams hold {usage.streams / 2**20:.2f} MiB; while the deep stream "
        f"draws, all tensors of the generation together are {usage.alive / 2**20:.2f} MiB.",
    ]
