"""The tests behind ``pytest --laws``: one for each law, state and case of every part."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.testing.builtin_parts import BUILTIN_PARTS, shipped_cases, why_without_case
from pretzel.testing.deviation import LawBroken
from pretzel.testing.discovery import one_line, raised_at
from pretzel.testing.law_case import Case, describe
from pretzel.testing.suite import Law, cases_of, parts_of, try_law

Factory = Callable[[], object]


class PackageLaws(pytest.Collector):
    """Collects every concrete part of a package; its name is the package's."""

    @override
    def collect(self) -> Iterator[pytest.Collector]:
        """Yield the classes, kind by kind."""
        cases = all_cases(self.config)
        try:
            parts = parts_of(self.name)
        except UserError as error:
            raise self.CollectError(f"--laws {self.name}: {error}") from error
        for part in parts:
            name = f"{part.__module__}.{part.__qualname__}".replace("::", ".")
            # The class starts the ids of its tests: `--dist loadfile` keeps them together.
            own = cases.get(part) or shipped_cases(part)
            yield ClassLaws.from_parent(self, name=name, nodeid=name, part=part, cases=own)


class ClassLaws(pytest.Collector):
    """Collects the laws of one class, for each function that builds it."""

    def __init__(self, *, part: type, cases: Sequence[Factory], **node: Any) -> None:  # noqa: ANN401
        super().__init__(**node)
        self.part = part
        self.cases = cases
        self.add_marker("laws")

    @override
    def collect(self) -> Iterator[pytest.Item]:
        """Yield one test for each law, state and case."""
        if not self.cases:
            reason = why_without_case(self.part)
            skipped: Callable[[], None] = partial(pytest.skip, reason)
            test = skipped if reason else partial(_refuse, _how_to_add_a_case(self.part))
            yield LawItem.from_parent(self, name="has a case", test=test)
        for number, factory in enumerate(self.cases):
            label = f"case {number}" if len(self.cases) > 1 else "case"
            try:
                cases = cases_of(factory)
            except Exception as error:
                raised = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                reason = f"{self.name}, {label}: {raised}{one_line(error)}{raised_at(error)}"
                test = partial(_refuse, reason)
                yield LawItem.from_parent(self, name=f"{label} can be built", test=test)
                continue
            for law, case in cases:
                # Brackets would be parameters to pytest 9: --last-failed would not find the id.
                name = f"{law.name} ({case.state}, {label})"
                test = partial(_try, self.name, law, case)
                yield LawItem.from_parent(self, name=name, test=test)


class LawItem(pytest.Item):
    """A test of one class, which raises ``LawBroken``, or a ``UserError`` if it has no case."""

    def __init__(self, *, test: Callable[[], None], **node: Any) -> None:  # noqa: ANN401
        super().__init__(**node)
        self.test = test

    @override
    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the test is listed."""
        return self.path, None, f"{self.parent.name}: {self.name}" if self.parent else self.name

    @override
    def runtest(self) -> None:
        """Test."""
        self.test()

    @override
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: object) -> Any:
        """Show the message in the place of a traceback."""
        if isinstance(excinfo.value, LawBroken | UserError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


def _try(name: str, law: Law, case: Case[Any]) -> None:
    """Raise ``LawBroken`` with the meaning of a law, the worst error and where it is."""
    outcome = try_law(law, case)
    if not outcome.passed:
        built = describe(case.factory)
        raise LawBroken(
            f"{name}{f', built as {built}' if built else ''}\nbreaks {law.name}"
            f" ({'every parameter perturbed' if case.perturbed else 'at initialisation'}"
            f"{', in evaluation mode' if case.evaluation else ''}):"
            f"\n  {law.meaning}\n  {outcome.detail}"
        ) from outcome.cause


def _refuse(reason: str) -> None:
    raise UserError(reason)


def all_cases(config: pytest.Config) -> dict[type, Sequence[Factory]]:
    """Return Pretzel's own cases, replaced by those of every ``conftest.py`` for its classes."""
    merged: dict[type, Sequence[Factory]] = dict(BUILTIN_PARTS)
    # The hook's first answer is that of the conftest.py that was loaded last: the deepest.
    for cases in reversed(config.hook.pytest_law_cases()):
        for part, factories in dict(cases).items():
            is_list = isinstance(factories, list | tuple) and all(map(callable, factories))
            if not isinstance(part, type) or not is_list:
                raise pytest.Collector.CollectError(
                    "pytest_law_cases must return {class: [function, ...]} of functions without "
                    f"arguments that build the class, got {part!r}: {factories!r}"
                )
            merged[part] = factories
    return merged


def _how_to_add_a_case(part: type) -> str:
    return (
        f"{part.__module__}.{part.__qualname__} has no law case: add one to conftest.py\n\n"
        f"    from {part.__module__} import {part.__name__}\n\n"
        "    def pytest_law_cases():\n"
        f"        return {{{part.__name__}: [lambda: {part.__name__}(...)]}}\n\n"
        "with arguments that make it small (an interleaving: inside "
        "pretzel.testing.tiny_pretzel)"
    )
