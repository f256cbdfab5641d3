"""Pydantic models of a grid file, from which its reader and the editors' JSON schema both come.

A sentence "Must be ..." in a description is what an error message says of a wrong value.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

Direction = Literal["max", "min"]
Order = Literal["seeds", "arms"]
Combine = Literal["product", "zip", "one_at_a_time"]

OVERRIDE_GROUPS = "model, data, trainer, optimizer, lr_scheduler, seed_everything, ckpt_path"
"""The first words of an override's key, which no link of a chain may be called."""
_END = r"$(?!\n)"  # to Python, "$" matches before a newline at the end too
DOTTED_KEY = rf"^[^.\s+]+(\.[^.\s+]+)*\+?{_END}"
MAX_NAME_BYTES = 255
"""Longest name of a file or folder that the usual file systems take."""

# beside the schema's patternProperties, which alone would allow any other name too
_ONLY_THESE_NAMES: JsonDict = {"additionalProperties": False}


def _all_differ(values: list[Any]) -> list[Any]:
    if any(values.count(value) > 1 for value in values):
        raise ValueError("values repeat")
    return values


FileNames = str | Annotated[list[str], Field(min_length=1)]
Files = Annotated[FileNames, Field(description="Must be a file or a list of files.")]
DottedKey = Annotated[
    str,
    Field(pattern=DOTTED_KEY, description="Must be a dotted key, such as model.init_args.lr."),
]
Name = Annotated[
    str,
    Field(
        pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]*{_END}",
        max_length=MAX_NAME_BYTES,
        description="Must be letters, digits, '.', '_' and '-', at most 255 of them (a name "
        "becomes a folder).",
    ),
]
LinkName = Annotated[
    str,
    Field(
        pattern=rf"^(?!(?:{OVERRIDE_GROUPS.replace(', ', '|')})$)[A-Za-z0-9][A-Za-z0-9_-]*{_END}",
        max_length=MAX_NAME_BYTES,
        description=f"Must be letters, digits, '_' and '-', without '.', and none of "
        f"{OVERRIDE_GROUPS}.",
    ),
]
ArmNames = Annotated[str | list[str], Field(description="Must be an arm or a list of arms.")]
Choices = Annotated[
    dict[str, ArmNames],
    Field(min_length=1, description="Must be a mapping of axes to an arm or a list of arms."),
]
Candidates = Annotated[
    list[Any],
    AfterValidator(_all_differ),
    Field(
        min_length=2,
        description="Must be a list of at least two different values.",
        json_schema_extra={"uniqueItems": True},
    ),
]
Seconds = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    """A mapping of exactly these keys, whose values are not converted from other types."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        regex_engine="python-re",
        strict=True,
        use_attribute_docstrings=True,
    )


class ArmEntry(_Strict):
    """One arm: what it sets, by dotted key; empty for the base itself.

    A key may begin with the name of a link of the chain, and is then for that link alone;
    `link: null` leaves the link out.
    """

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"propertyNames": {"pattern": DOTTED_KEY}}
    )

    tune: dict[DottedKey, Candidates] = Field(
        default_factory=dict, json_schema_extra=_ONLY_THESE_NAMES
    )
    """Values to choose from before the comparison, by dotted key: each combination of them is
    trained once, and the best on validation takes part. Must be a mapping of dotted keys to lists
    of values."""


class StageEntry(_Strict):
    """One stage: files, and what is laid over them, by dotted key."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"propertyNames": {"pattern": DOTTED_KEY}}
    )

    base: FileNames
    """The configuration. Must be a file or a list of files."""


class Match(_Strict):
    """Makes arms equal in size: the integer at a key is solved for each of them."""

    by: Literal["parameters", "flops"]
    """The size that is made equal to the baseline's: trainable `parameters`, or `flops` of a
    training step's forward on one sample."""

    via: Annotated[str, Field(pattern=DOTTED_KEY)]
    """The integer, a width for example; no arm may set it. Must be a dotted key, such as
    model.init_args.width."""

    tolerance: Annotated[float, Field(gt=0)] = 0.02
    """Relative difference that is equal enough. Must be a positive number, 0.02 for 2 %."""


class Tuning(_Strict):
    """The rule by which arms with `tune` choose their values before the comparison."""

    metric: Annotated[str, Field(pattern=rf"^(?!test[/_])\S+{_END}")]
    """The metric as it is logged. Must be a metric of validation, not of the test."""

    direction: Direction
    """The better direction."""

    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the runs that choose; by default, and at any rate, none of the compared. Must be an
    integer from 0."""


Arms = Annotated[
    dict[
        Name,
        Annotated[
            ArmEntry, Field(description="Must be a mapping of dotted keys to values ({} for none).")
        ],
    ],
    Field(
        min_length=1,
        description="Must be a mapping of arms to overrides.",
        json_schema_extra=_ONLY_THESE_NAMES,
    ),
]


class GridFile(_Strict):
    """A grid of runs that differ only where it says so."""

    base: FileNames
    """The configuration under every run; of several files the last one is on top. Files are
    relative to this one. Must be a file or a list of files."""

    axes: dict[Name, Arms] = Field(min_length=1, json_schema_extra=_ONLY_THESE_NAMES)
    """The varied axes, and the arms of each. Must be a mapping of axes to arms."""

    combine: Combine = "product"
    """`product` of the axes; `zip`, their arms paired in order; `one_at_a_time`, the baseline and
    each single departure from it."""

    exclude: list[Choices] = []
    """Combinations to leave out, each by the arms of some axes."""

    include: list[Choices] = []
    """Combinations to add, each by the arms of some axes; those of the baseline on the others."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(_all_differ)] = Field(
        [0], min_length=1, json_schema_extra={"uniqueItems": True}
    )
    """One run for each combination and seed. Must be a list of different integers from 0."""

    baseline: dict[str, str] = Field(min_length=1)
    """The arm of each axis that differences are taken to. Must be a mapping of each axis to an
    arm."""

    metrics: dict[str, Direction]
    """The columns of the table, and the better direction of each. Must be a mapping of metrics to
    max or min."""

    stages: dict[
        Name,
        Annotated[
            FileNames | StageEntry,
            Field(
                description="Must be a file, a list of files, or a mapping of `base` to such and "
                "of dotted keys to values."
            ),
        ],
    ] = Field({}, json_schema_extra=_ONLY_THESE_NAMES)
    """Upstream runs that the compared ones share, and whose weights they, and later stages, may
    name as `{stages.NAME}`. Must be a mapping of stages to files."""

    chain: dict[LinkName, Files] = Field({}, json_schema_extra=_ONLY_THESE_NAMES)
    """The runs of every arm, each from the weights of the one before. Must be a mapping of links
    to files."""

    match: Match | None = None
    """Makes the arms equal in size: the integer at a key is solved for. Must be a mapping with
    `by` and `via`."""

    tuning: Tuning | None = None
    """The rule by which arms with `tune` choose their values. Must be a mapping with `metric` and
    `direction`."""

    output: str | None = None
    """The folder of all runs; by default `runs/` and the name of the file. Must be a folder."""

    checkpoint_seconds: Seconds = 20.0
    """Time between the checkpoints from which a killed run continues. Must be a positive
    number."""

    hang_seconds: Seconds | None = None
    """Time without progress after which a run counts as failed; null for no limit. Must be a
    positive number or null."""

    order: Order = "seeds"
    """The order in which runs start: `seeds`, seed by seed, so that a grid that is stopped has
    whole rows; `arms`, arm by arm, so that runs of equal length run side by side."""


def grid_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a grid file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **GridFile.model_json_schema(),
        "title": "pretzel grid",
    }
