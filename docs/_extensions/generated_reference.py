"""Sphinx extension: reference pages made from the code, and equations without a network.

- ``reference/api/<package>.md`` for every entry of :data:`PACKAGES`, by autodoc;
- the directives ``{command-help}`` (what ``pretzel ... --help`` prints) and ``{grid-keys}`` (a
  table of the JSON schema of grid files);
- mathematics as MathML by docutils' own converter: MathJax would be loaded from a server.
"""

import contextlib
import importlib
import io
import os
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "pretzel": ("The public API.", ("errors", "model")),
    "pretzel.flow": (
        "The autoregressive flow block, its parts, and the deep stream.",
        ("block", "positions", "transforms", "context", "deep"),
    ),
    "pretzel.tarflow": ("A flow by itself: TarFlow and STARFlow.", ()),
    "pretzel.interleave": ("Which stream feeds which: VLM, shallow flow and deep flow.", ()),
    "pretzel.vlm": (
        "Vision-language model streams.",
        ("base", "tiny", "huggingface", "smollm2"),
    ),
    "pretzel.latent": ("Latent spaces.", ("fae", "features", "generative_model")),
    "pretzel.sequence": (
        "Documents of text and images, special tokens, packed batches.",
        (),
    ),
    "pretzel.sampling": ("Samplers, guidance and denoisers: the mathematics of one image.", ()),
    "pretzel.generation": ("Sequences of text and images being generated.", ("*",)),
    "pretzel.interop": ("Weights of the public TarFlow and STARFlow checkpoints.", ("*",)),
    "pretzel.testing": ("The laws that parts obey.", ()),
    "pretzel.training": ("How the models train.", ("module",)),
    "pretzel.runs": ("One run of any LightningModule.", ("*",)),
    "pretzel.ablation": (
        "Grids of runs of any LightningCLI project.",
        ("protocols", "engines.base", "gridfile.schema"),
    ),
    "datamodules": (
        "Data: WebDataset shards and the embedded data sets.",
        ("sources.source", "recipes.recipe"),
    ),
    "callbacks": ("Metrics, samples, weight averaging.", ("protocols",)),
}
"""Packages of the API reference in reading order: about them, and modules described beside what the
package itself exports (``*`` for all)."""


def _page(name: str, described: list[object]) -> str:
    """Return the source of one package's page.

    Args:
        name: The package.
        described: What is described so far on any page, and will not be again; is added to.
    """
    about, modules = PACKAGES[name]
    package = importlib.import_module(name)
    lines = [f"# {name}", "", about, ""]
    exported = _new(_public(package), described)
    if exported:
        lines += ["## What it exports", "", *_automodule(name, exported)]
    if modules == ("*",):
        infos = pkgutil.iter_modules(package.__path__)
        modules = tuple(info.name for info in infos if not info.name.startswith("_"))
    for path in (f"{name}.{module}" for module in modules):
        members = _new(_public(importlib.import_module(path)), described)
        if members:
            lines += [f"## {path}", "", *_automodule(path, members)]
    return "\n".join(lines)


def _new(members: dict[str, object], described: list[object]) -> dict[str, object]:
    found = {
        name: value for name, value in members.items() if not any(value is one for one in described)
    }
    described += found.values()
    return found


def _public(module: ModuleType) -> dict[str, object]:
    """Return what a module exports, or without ``__all__`` the classes and functions of its own."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    }


def _automodule(path: str, members: dict[str, object]) -> list[str]:
    lines = ["```{eval-rst}", f".. automodule:: {path}", "   :no-members:", ""]
    for name, value in members.items():
        kind = "class" if isinstance(value, type) else "function" if callable(value) else "data"
        lines += [f".. auto{kind}:: {path}.{name}", ""]
        if kind == "data":
            lines.insert(-1, "   :no-value:")
    return [*lines, "```", ""]


def _escape(line: str) -> str:
    """Escape what reStructuredText would take for markup: shapes such as ``*b``, and ``|z|``."""
    parts = re.split(r"(``.*?``|:[a-z:]+:`.*?`|`.*?`|\*\*?[^\s*](?:[^*]*[^\s*])?\*\*?(?!\w))", line)
    return "".join(
        part if number % 2 else re.sub(r"([*|])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def _escape_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    literal: int | None = None  # indentation of the paragraph that a literal block belongs to
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None:
            lines[number] = _escape(line)
            if line.rstrip().endswith("::"):
                literal = indent


def _write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "reference" / "api"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in PACKAGES:
            old.unlink()
    described: list[object] = []
    for name in PACKAGES:
        text = _page(name, described)
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:  # unchanged pages are not read again
            path.write_text(text)


class CommandHelp(SphinxDirective):
    """Shows what a command of ``pretzel`` prints with ``--help``."""

    required_arguments = 0
    optional_arguments = 10

    def run(self) -> list[nodes.Node]:
        """Run the command's parser in this process."""
        from pretzel.__main__ import main

        printed = io.StringIO()
        os.environ["COLUMNS"] = "100"
        with contextlib.redirect_stdout(printed), patch("sys.argv", ["pretzel"]):  # usage names it
            code = main([*self.arguments, "--help"])
        if code:
            raise self.error(f"pretzel {' '.join(self.arguments)} --help ended with {code}")
        text = printed.getvalue().rstrip()
        return [nodes.literal_block(text, text, language="text")]


class GridKeys(SphinxDirective):
    """A table of the keys of a definition in the JSON schema of grid files."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Render the schema that ``pretzel grid schema`` prints."""
        from pretzel.ablation.gridfile.schema import grid_schema

        schema = grid_schema()
        definitions = schema.get("$defs", {})
        root = schema
        if "$ref" in schema:
            root = definitions[schema["$ref"].rpartition("/")[2]]
        if self.arguments:
            root = definitions[self.arguments[0]]
        required = set(root.get("required", []))
        rows = ["| key | | meaning |", "|---|---|---|"]
        for key, value in root["properties"].items():
            needed = "required" if key in required else _default(value)
            about = " ".join(value.get("description", "").split()).replace("|", "\\|")
            rows.append(f"| `{key}` | {needed} | {about} |")
        return self.parse_text_to_nodes("\n".join(rows))


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    return "" if default in (None, {}, []) else f"`{default}`"


def _inline_math(self: Any, node: nodes.math) -> None:  # noqa: ANN401
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block_math(self: Any, node: nodes.math_block) -> None:  # noqa: ANN401
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it."""
    app.connect("builder-inited", _write_pages)
    app.connect("autodoc-process-docstring", _escape_docstring, priority=400)  # before Napoleon
    app.add_directive("command-help", CommandHelp)
    app.add_directive("grid-keys", GridKeys)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
