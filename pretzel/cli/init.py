"""The command ``pretzel init``."""

import importlib.util
import keyword
import shutil
from pathlib import Path

from pretzel.cli.parser import Parser
from pretzel.errors import UserError

_TEMPLATE = Path(__file__).parent / "project_template"
_SHIPPED = Path(__file__).parents[2] / "ablations"
_NAME = "my_project"
"""The template's package, for which the project's own name is written."""
_COPIES = {
    "base/easy_vqa.yaml": "base.yaml",
    "base/own_data.yaml": "own_data.yaml",
    **{f"stages/{name}.yaml": f"stages/{name}.yaml" for name in ("s1", "s2", "s3", "short")},
}
"""Configurations that Pretzel ships, by the name that they get in a project."""
_PLACES = {"ablations/": "", "base/easy_vqa.yaml": "base.yaml", "runs/easy_vqa": "runs/base"}


def build_parser() -> Parser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="pretzel init",
        description="Write a project to start from: a base configuration, another for your own "
        "data, a grid, a chain of stages, and a package with a flow block of your own and its "
        "laws as tests.",
    )
    parser.add_argument("folder", type=Path, help="is made; its name is that of the package")
    return parser


def init(args: list[str]) -> int:
    """Run ``pretzel init``: write a project to start from."""
    folder = build_parser().parse_args(args).folder
    write_project(folder)
    print(f"{folder}: written; read its README.md, and start with:")
    print(f"  cd {folder} && pretzel fit -c base.yaml -c quick.yaml")
    return 0


def write_project(folder: Path) -> None:
    """Write a project whole, or nothing; the folder's name becomes that of its package.

    Raises:
        UserError: If the folder exists, cannot be written, or its name cannot be a package's.
    """
    name = folder.resolve().name.replace("-", "_")
    if folder.exists():
        raise UserError(f"{folder} exists already; name a folder that does not")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"{folder}: the name must be that of a package, such as {_NAME}")
    if importlib.util.find_spec(name) is not None:
        raise UserError(f"{folder}: a package {name} is installed already, which would hide yours")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _write(partial, name)
        partial.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, name: str) -> None:
    texts = {
        str(path.relative_to(_TEMPLATE)).replace(_NAME, name): path.read_text().replace(_NAME, name)
        for path in sorted(_TEMPLATE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    for source, target in _COPIES.items():
        text = (_SHIPPED / source).read_text()
        for old, new in _PLACES.items():
            text = text.replace(old, new)
        texts[target] = text
    for target, text in texts.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
