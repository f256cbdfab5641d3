"""Hashes of the source code that a configuration runs; comments and docstrings change none.

From the classes that a configuration names, ``import`` statements are followed as far as the code
is somebody's own: not in the standard library and not in an installed distribution. Those count by
their version. Through an ``__init__`` that only passes names on, nothing but the named module is
followed: a new part beside those that a run uses leaves the run as it is.
"""

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import itertools
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_OURS = frozenset({"pretzel", "datamodules", "callbacks"})  # also where they are installed
_LAZY = "pretzel"  # its __init__ is the public API: it runs nothing, and names what runs do not use


@dataclass(frozen=True, kw_only=True)
class SourceCode:
    """Hashes of the modules that are followed; versions of the distributions that they import."""

    modules: dict[str, str]
    versions: dict[str, str]


def code_behind(names: Iterable[str]) -> SourceCode:
    """Return the code behind dotted names of classes, functions or modules.

    Names of nothing that can be imported are passed over: they are not code.
    """
    return _closure(frozenset(filter(None, map(_module_of, names))))


def own_code(kind: type) -> str:
    """Return the code behind a class of a user as a text; nothing for a class of ours.

    That is the hashes of the user's own modules, and the version of what the class is installed by.
    """
    top = kind.__module__.partition(".")[0]
    if top in _OURS:
        return ""
    code = code_behind([f"{kind.__module__}.{kind.__qualname__}"])
    own = {m: digest for m, digest in code.modules.items() if m.partition(".")[0] not in _OURS}
    installed = distributions().get(top, ()) if not own else ()
    return str(own | {name: importlib.metadata.version(name) for name in sorted(installed)})


@cache
def _closure(roots: frozenset[str]) -> SourceCode:
    modules: dict[str, str] = {}
    others: set[str] = set()
    todo = sorted(roots)
    while todo:
        name = todo.pop()
        if name in modules or name in others:
            continue
        path = file_of(name)
        if path is None:
            others.add(name)
            continue
        module = _read(path, name, path.stat().st_mtime_ns)
        modules[name] = module.digest
        todo += module.imported
        todo += () if module.passes_on else (_holder(*origin) for origin in module.taken.values())
        # a package's own module runs before what is in it
        parents = itertools.accumulate(name.split(".")[:-1], "{}.{}".format)
        todo += [p for p in parents if p != _LAZY and not _passed_on(p)]
    tops = {name.partition(".")[0] for name in others}
    installed = {one for top in tops for one in distributions().get(top, ())}
    versions = {name: importlib.metadata.version(name) for name in sorted(installed)}
    return SourceCode(modules=dict(sorted(modules.items())), versions=versions)


distributions = cache(importlib.metadata.packages_distributions)
"""Names of the installed distributions by that of a package; to look them up takes a second."""


@cache
def _module_of(name: str) -> str | None:
    """Return the module that a dotted name lies in: the longest beginning that is one."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        if _spec(module) is not None:
            return _holder(module, parts[cut]) if cut < len(parts) else module
    return None


def _holder(module: str, name: str) -> str:
    """Return the module that a name taken from a module really comes from."""
    if _spec(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    origin = _passed_on(module).get(name)
    return module if origin is None else _holder(*origin)


def _passed_on(module: str) -> dict[str, tuple[str, str]]:
    """Return where the names of an ``__init__`` come from that does nothing but pass them on."""
    path = file_of(module)
    if path is None:
        return {}
    package = _read(path, module, path.stat().st_mtime_ns)
    return package.taken if package.passes_on else {}


@cache
def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return loaded.__spec__ or importlib.machinery.ModuleSpec(name, None, origin=file)
    parent = name.rpartition(".")[0]
    if parent and _spec(parent) is None:
        return None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None  # the parent is no package, or refuses to be imported


@cache
def file_of(name: str) -> Path | None:
    """Return the file of a module that is followed; None for built-in, namespace or others'."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    spec = _spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    place = path.resolve()  # an environment may be a link to another folder
    if top not in _OURS and any(place.is_relative_to(folder) for folder in _installed()):
        return None
    return path


@cache
def _installed() -> tuple[Path, ...]:
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


@dataclass(frozen=True, kw_only=True)
class _Module:
    """A module's source code.

    Attributes:
        digest: Hash of it without comments and docstrings.
        imported: Modules that it imports whole.
        taken: Where names come from that it takes from other modules: module and name there.
        passes_on: Whether it is an ``__init__`` that only passes such names on.
    """

    digest: str
    imported: set[str]
    taken: dict[str, tuple[str, str]]
    passes_on: bool


@cache
def _read(path: Path, name: str, changed: int) -> _Module:
    """Read a module; the time when its file was changed last is for the cache."""
    tree = _code(path.read_bytes())
    is_package = path.name == "__init__.py"
    package = name if is_package else name.rpartition(".")[0]
    imported: set[str] = set()
    taken: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0]
                base = f"{above}.{base}" if base else above
            for alias in node.names:
                taken[alias.asname or alias.name] = (base, alias.name)
    return _Module(
        digest=_hash(tree),
        imported=imported,
        taken=taken,
        passes_on=is_package
        and all(isinstance(line, ast.ImportFrom | ast.Pass) or _is_all(line) for line in tree.body),
    )


def code_digest(source: bytes) -> str:
    """Return the hash of a module's source without comments and docstrings.

    Raises:
        SyntaxError: If it is no Python.
    """
    return _hash(_code(source))


def _hash(tree: ast.Module) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _code(source: bytes) -> ast.Module:
    tree = ast.parse(source)
    _drop_docstrings(tree)
    return tree


def _is_all(line: ast.stmt) -> bool:
    return isinstance(line, ast.Assign) and [ast.unparse(t) for t in line.targets] == ["__all__"]


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]


def _is_text(line: ast.stmt) -> bool:
    # a string alone on a line is a comment wherever it stands (attribute docstrings)
    match line:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False
