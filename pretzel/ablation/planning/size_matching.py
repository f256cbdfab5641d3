"""Makes arms as large as the baseline: solves for an integer, on models without memory."""

from collections.abc import Callable
from dataclasses import dataclass

from pretzel.ablation.gridfile.schema import Match
from pretzel.ablation.planning.integer_search import solve
from pretzel.errors import NotApplicable, UserError
from pretzel.runs.config.class_paths import same_class
from pretzel.runs.config.overlay import Config, at, locate, override
from pretzel.runs.config.slots import slot_classes
from pretzel.runs.config.yaml_lines import Key, Source


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The integer at a key that an arm would have had, and the one that was solved for.

    The quantity that is made equal is ``parameters`` or ``flops``; relative is the difference to
    the baseline that is left.
    """

    key: str
    before: int
    after: int
    by: str
    relative: float

    def __str__(self) -> str:
        """Return, for example, ``matched: width 128 -> 112, parameters -0.4 %``."""
        is_moved = self.before != self.after
        moved = f"{self.before} -> {self.after}" if is_moved else f"stays {self.after}"
        name = self.key.rpartition(".")[2]
        return f"matched: {name} {moved}, {self.by} {100 * self.relative:+.1f} %"


@dataclass
class Matcher:
    """Solves for the integer of one arm after the other.

    Attributes:
        rule: The quantity that is made equal, and the key of the integer.
        name: The grid file and where in it the rule stands, for messages.
        size: Returns the size of a configuration's model, None where it is not known.
        value: Returns what stands at a path of a configuration, defaults included.
        target: The size of the baseline; it is set first.
    """

    rule: Match
    name: str
    size: Callable[[Config], int | None]
    value: Callable[[Config, Key], object]
    target: int | None = None

    def take_baseline(self, config: Config) -> None:
        """Take the size of the baseline.

        Raises:
            UserError: If it is not known, or the key is none of the baseline's integers.
        """
        self.start(config, config)
        self.target = self.size(config)
        if self.target is None:
            offered = " that offers example_forward()" if self.rule.by == "flops" else ""
            raise UserError(
                f"{self.name}: by {self.rule.by} needs a model{offered} that can be built and run "
                "without memory; the baseline's cannot"
            )

    def __call__(self, base: Config, config: Config) -> Matched | None:
        """Return the integer that makes an arm as large as the baseline; None if sizes are unknown.

        The configurations are the one under all arms, and that of the combination.

        Raises:
            UserError: If the arm has no integer there, sets it itself, or cannot be matched.
        """
        if self.target is None:
            return None
        start = self.start(base, config)

        def size(value: int) -> int | None:
            try:
                return self.size(self.put(config, value))
            except NotApplicable:
                raise
            except UserError:
                return None

        if size(start) is None:
            self.size(config)  # raises what is wrong, which has nothing to do with the integer
            return None
        try:
            value, relative = solve(size, start, self.target, self.rule.tolerance)
        except UserError as error:
            raise UserError(f"{self.name}: {self.rule.by} {error}") from error
        by = self.rule.by
        return Matched(key=self.rule.via, before=start, after=value, by=by, relative=relative)

    def put(self, config: Config, value: int) -> Config:
        """Return a configuration with another integer."""
        return override(config, self.rule.via, value, Source(name=self.name))

    def start(self, base: Config, config: Config) -> int:
        """Return the integer that an arm has by itself.

        Raises:
            UserError: If it is none, or the arm sets it, unless it belongs to a class of its own.
        """
        path = locate(config.values, self.rule.via)
        written = config.source(path)
        if at(config.values, path) is not None and written != base.source(path):
            owner = (*path[:-2], "class_path")
            classes = [at(one.values, owner) for one in (base, config)]
            slot = slot_classes(config.values, owner[:-1])
            if all(isinstance(name, str) for name in classes) and same_class(
                str(classes[0]), str(classes[1]), slot
            ):
                raise UserError(
                    f"{written}: {self.rule.via}: is solved for ({self.name}), so no arm may set it"
                )
        value = self.value(config, path)
        if type(value) is not int:
            raise UserError(f"{self.name}: {self.rule.via} must be an integer, it is {value!r}")
        return value
