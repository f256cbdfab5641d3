"""Differences of a combination to the baseline, in lines."""

from pretzel.ablation.identity.differences import changes
from pretzel.ablation.planning.parsed_chains import Chain, ParsedLink
from pretzel.runs.config.nested import APPENDS


def baseline_differences(baseline: Chain, chain: Chain) -> list[str]:
    """Return what differs from the baseline, with the links where it does if not in all."""
    baseline_links = {link.name: link for link in baseline.links}
    common = [link for link in chain.links if link.name in baseline_links]
    matched = chain.matched
    where: dict[str, list[str]] = {}
    for link in common:
        for line in _link_changes(baseline_links[link.name], link):
            if matched is None or not _is_of(line, matched.key):
                where.setdefault(line, []).append(link.name)
    lines = [
        line if len(links) == len(common) else f"{', '.join(links)}: {line}"
        for line, links in where.items()
    ]
    if matched is not None and (matched.before != matched.after or matched.relative):
        lines.append(str(matched))
    return lines + [f"no {link}" for link in chain.absent if link in baseline_links]


def _link_changes(base: ParsedLink, other: ParsedLink) -> list[str]:
    """Return what differs in a link; of what is tuned, which values are tried."""
    before, after = base.tuned, other.tuned
    lines = changes(*(link.variants[0].fingerprint.config for link in (base, other)))
    lines = [line for line in lines if not any(_is_of(line, key) for key in before | after)]
    for key in [*after, *(before.keys() - after.keys())]:
        values = after.get(key)
        if before.get(key) != values:
            change = f"tuned over {len(values)} values {values}" if values else "not tuned"
            lines.append(f"{_plain(key)}: {change}")
    counted, others = base.variants[0].counted, other.variants[0].counted
    for kind in sorted(counted.keys() | others.keys()):
        numbers = [f"{count.get(kind, 0):.3g}" for count in (counted, others)]
        if numbers[0] != numbers[1]:
            lines.append(f"{kind} in a step: {' -> '.join(numbers)}")
    return lines


def _is_of(line: str, key: str) -> bool:
    """Tell whether a line is about a key or what is inside it."""
    return line.startswith((f"{_plain(key)}: ", f"{_plain(key)}."))


def _plain(key: str) -> str:
    parts = key.removesuffix(APPENDS).split(".")
    return ".".join(part for part in parts if part not in ("init_args", "class_path"))
