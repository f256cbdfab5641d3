"""Checks that the metrics of a grid are logged by some part, before anything trains."""

from collections.abc import Iterator, Mapping

from pretzel.ablation.gridfile.grid import Grid
from pretzel.ablation.planning.metric_names import MetricNames
from pretzel.ablation.planning.parsed_chains import Chain, ParsedLink


def check_metrics(grid: Grid, chains: Mapping[str, Chain]) -> tuple[list[str], list[str]]:
    """Return what is wrong with the metrics of a grid, and what could not be checked.

    A metric of the table must be logged by what is measured in some arm, that of tuning by some
    candidate.
    """
    links = [link for chain in chains.values() for link in chain.links]
    last = [chain.links[-1] for chain in chains.values() if chain.links]
    tuned = [link for link in links if len(link.variants) > 1]
    wanted = [(f"{m.source or grid.file}: metrics", m.name, _names(last)) for m in grid.metrics]
    if grid.tuning is not None:
        wanted.append((f"{grid.file}: tuning.metric", grid.tuning.metric, _names(tuned)))
    mistakes, silent = [], {}
    for key, metric, names in wanted:
        if not (names.known or names.silent) or names.has(metric):
            continue  # without an arm there are other mistakes
        if names.silent:
            near = names.near(metric).removeprefix("; ")
            silent[f"{metric} ({near})" if near else metric] = names.silent
        else:
            mistakes.append(f"{key}: no part logs '{metric}'{names.near(metric)}")
    return mistakes, list(_unchecked(silent))


def _names(links: list[ParsedLink]) -> MetricNames:
    names = MetricNames()
    for variant in (variant for link in links for variant in link.variants):
        names |= variant.metrics
    return names


def _unchecked(silent: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Say for each set of silent classes which metrics they may or may not log."""
    for classes in dict.fromkeys(silent.values()):
        metrics = ", ".join(metric for metric, own in silent.items() if own == classes)
        say = "does not say what it logs" if len(classes) == 1 else "do not say what they log"
        yield f"Metrics that are not checked: {metrics}: {', '.join(sorted(classes))} {say}"
