"""What a combination changes against the baseline, in lines."""

from typing import Any

from pretzel.ablation.identity.config_changes import changes
from pretzel.ablation.planning.parsed_chains import Chain, ParsedLink


def contrast(baseline: Chain, chain: Chain) -> list[str]:
    """Return what differs from the baseline, with the links where it does if not in all.

    Args:
        baseline: The baseline's chain.
        chain: That of another combination, or the same.
    """
    base = {one.name: one for one in baseline.links}
    both = [one for one in chain.links if one.name in base]
    where: dict[str, list[str]] = {}
    for one in both:
        for line in _link_changes(base[one.name], one):
            if chain.matched is None or not _is_of(line, chain.matched.key):
                where.setdefault(line, []).append(one.name)
    told = [
        line if len(links) == len(both) else f"{', '.join(links)}: {line}"
        for line, links in where.items()
    ]
    if chain.matched is not None and (chain.matched.is_moved or chain.matched.is_off):
        told.append(str(chain.matched))
    return told + [f"no {link}" for link in chain.absent if link in base]


def tuned(chain: Chain) -> dict[str, list[Any]]:
    """Return the values that are tried for a combination, by key."""
    found: dict[str, list[Any]] = {}
    for link in chain.links:
        for key, values in link.tuned.items():
            found[f"{link.name}.{key}" if link.name else key] = values
    return found


def _link_changes(base: ParsedLink, other: ParsedLink) -> list[str]:
    """Return what differs in a link; of what is tuned, which values are tried."""
    before, after = base.tuned, other.tuned
    lines = [
        line
        for line in changes(base.first.fingerprint.config, other.first.fingerprint.config)
        if not any(_is_of(line, key) for key in (*before, *after))
    ]
    for key in [*after, *(before.keys() - after.keys())]:
        if before.get(key) == after.get(key):
            continue
        values = after.get(key)
        told = f"tuned over {len(values)} values {values}" if values else "not tuned"
        lines.append(f"{_plain(key)}: {told}")
    return lines


def _is_of(line: str, key: str) -> bool:
    """Tell whether a line tells of a key or of what is inside it."""
    return line.startswith((f"{_plain(key)}: ", f"{_plain(key)}."))


def _plain(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in ("init_args", "class_path"))
