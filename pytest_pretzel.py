"""The laws as a pytest plugin: ``pytest --laws my_package``, or ``laws = my_package`` in the ini.

One test for each law, state of the parameters and case of every concrete part of a package. How a
part is built is said in ``conftest.py``::

    def pytest_law_cases():
        return {MyBlock: [lambda: MyBlock(3, (2, 3), 1, Flip(), transform=AffineExp(), width=8)]}

This module stands outside :mod:`pretzel`, and imports nothing of it until packages are asked for:
plugins are loaded before import hooks such as jaxtyping's, which refuse packages that are already
imported.
"""

from collections.abc import Callable, Generator, Mapping, Sequence

import pytest


class LawHooks:
    """What a ``conftest.py`` may say to this plugin."""

    @pytest.hookspec
    def pytest_law_cases(self) -> Mapping[type, Sequence[Callable[[], object]]]:  # type: ignore[empty-body]
        """Return functions without arguments that build parts for their trial, by class.

        An interleaving stands trial in a model: ``partial(tiny_pretzel, MyInterleaving)``, with
        :func:`pretzel.testing.tiny_pretzel`. A class named here takes the place of Pretzel's own
        cases for it, and of those of a ``conftest.py`` further up.
        """


class Laws:
    """Adds the laws of packages to what a session collects.

    Args:
        packages: Dotted names.
    """

    def __init__(self, packages: list[str]) -> None:
        self.packages = packages

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put one collector for each package behind the session's own."""
        report = yield
        if isinstance(collector, pytest.Session):
            from pretzel.testing.plugin import PackageLaws

            report.result.extend(
                PackageLaws.from_parent(collector, name=package) for package in self.packages
            )
        return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--laws`` and the ini option of the same name."""
    parser.getgroup("pretzel").addoption(
        "--laws",
        action="append",
        dest="law_packages",
        metavar="PACKAGE",
        help="also hold every concrete part of a package to the laws of its kind (repeatable; "
        "`-m laws` runs nothing else)",
    )
    parser.addini("laws", "packages whose parts are held to the laws of their kinds", type="args")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let ``conftest.py`` give cases."""
    pluginmanager.add_hookspecs(LawHooks)


def pytest_configure(config: pytest.Config) -> None:
    """Do something only where packages are asked for."""
    asked = config.getoption("law_packages") or config.getini("laws")
    if packages := list(dict.fromkeys(asked)):
        config.addinivalue_line("markers", "laws: a law of a part of Pretzel (pytest --laws)")
        config.pluginmanager.register(Laws(packages), "pretzel-laws")
