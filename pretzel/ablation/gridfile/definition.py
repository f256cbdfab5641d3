"""What a grid file may hold. The reader and the editors' JSON schema both come from these types."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from pretzel.ablation.gridfile.grid import Combine, Direction, DottedKey, Match, Order, Tuning
from pretzel.ablation.gridfile.typed import Rule

GROUPS = ("model", "data", "trainer", "optimizer", "lr_scheduler", "seed_everything", "ckpt_path")
"""The first words of an override's key, which no link of a chain may be called."""

Name = Annotated[
    str,
    Rule(
        told="letters, digits, '.', '_' and '-' (a name becomes a folder)",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    ),
]
LinkName = Annotated[
    str,
    Rule(
        told=f"letters, digits, '_' and '-', without '.', and none of {', '.join(GROUPS)}",
        pattern=rf"^(?!(?:{'|'.join(GROUPS)})$)[A-Za-z0-9][A-Za-z0-9_-]*$",
    ),
]
Files = Annotated[
    str | Annotated[list[str], Rule(at_least=1)], Rule(told="a file or a list of files")
]
Choices = Annotated[
    dict[str, str | list[str]],
    Rule(told="a mapping of axes to an arm or a list of arms", at_least=1),
]
Seed = Annotated[int, Rule(minimum=0.0)]
Values = Annotated[
    list[Any], Rule(told="a list of at least two different values", at_least=2, different=True)
]


@dataclass(frozen=True, kw_only=True)
class ArmFile:
    """One arm: what it sets, by dotted key; empty for the base itself.

    A key may begin with the name of a link of the chain, and is then for that link alone;
    ``link: null`` leaves the link out.

    Attributes:
        tune: Values to choose from before the comparison, by dotted key: each combination of them
            is trained once, and the best on validation takes part.
        overrides: Dotted keys and the values they are set to.
    """

    tune: Annotated[
        dict[DottedKey, Values], Rule(told="a mapping of dotted keys to lists of values")
    ] = field(default_factory=dict)
    overrides: Annotated[dict[DottedKey, Any], Rule(others=True)] = field(default_factory=dict)


Arms = Annotated[
    dict[Name, Annotated[ArmFile, Rule(told="a mapping of dotted keys to values ({} for none)")]],
    Rule(told="a mapping of arms to overrides", at_least=1),
]


@dataclass(frozen=True, kw_only=True)
class GridFile:
    """A grid of cells that differ only where it says so.

    Attributes:
        base: The configuration under every cell; of several files the last one is on top. Files
            are relative to this one.
        axes: What is varied: named axes of named arms.
        combine: ``product`` of the axes; ``zip``, their arms paired in order; ``one_at_a_time``,
            the baseline and each single departure from it.
        exclude: Combinations to leave out, each by the arms of some axes.
        include: Combinations to add, each by the arms of some axes; those of the baseline on the
            others.
        seeds: One cell for each combination and seed.
        baseline: The arm of each axis that differences are taken to.
        metrics: The columns of the table and which direction is better.
        stages: Upstream runs that cells share, and whose weights they may name as
            ``{stages.NAME}``.
        chain: The runs of every cell, each from the weights of the one before.
        match: Makes the arms equal in size: the integer at a key is solved for.
        tuning: How the arms that have ``tune`` choose their values.
        output: The folder of all runs; by default ``runs/`` and the name of the file.
        checkpoint_seconds: Time between the checkpoints from which a killed cell continues.
        hang_seconds: Time without progress after which a cell counts as failed; None for no limit.
        order: Which cells start first: ``seeds``, seed by seed, so that a grid that is stopped has
            whole rows; ``arms``, arm by arm, so that cells of equal length run side by side.
    """

    base: Files
    axes: Annotated[dict[Name, Arms], Rule(told="a mapping of axes to arms", at_least=1)]
    combine: Combine = "product"
    exclude: list[Choices] = field(default_factory=list)
    include: list[Choices] = field(default_factory=list)
    seeds: Annotated[
        list[Seed],
        Rule(told="a list of different integers from 0", at_least=1, different=True),
    ] = field(default_factory=lambda: [0])
    baseline: Annotated[dict[str, str], Rule(told="a mapping of each axis to an arm", at_least=1)]
    metrics: Annotated[dict[str, Direction], Rule(told="a mapping of metrics to max or min")]
    stages: Annotated[dict[Name, Files], Rule(told="a mapping of stages to files")] = field(
        default_factory=dict
    )
    chain: Annotated[dict[LinkName, Files], Rule(told="a mapping of links to files")] = field(
        default_factory=dict
    )
    match: Match | None = None
    tuning: Tuning | None = None
    output: str | None = None
    checkpoint_seconds: Annotated[float, Rule(told="a positive number", above=0.0)] = 20.0
    hang_seconds: Annotated[float, Rule(told="a positive number", above=0.0)] | None = None
    order: Order = "seeds"
