"""Files that ship with the package beside the code that reads them, by name."""

from pathlib import Path

from pretzel.errors import UserError


def file_of(argument: str, value: str | None, shipped: Path) -> Path:
    """Return the file that a value means: a path, the name of a shipped one, or None: ``shipped``.

    ``scenes`` names the file that has the ending of ``shipped``, from the first dot on, and lies
    beside it. ``argument`` is the name of what has the value.

    Raises:
        UserError: If it is neither a path nor such a name.
    """
    if value is None:
        return shipped
    path = Path(value)
    if path.suffix or path.name != value or path.is_file():
        return path
    ending = shipped.name[shipped.name.index(".") :]
    named = shipped.with_name(value + ending)
    if not named.exists():
        beside = shipped.parent.glob(f"*{ending}")
        names = sorted(file.name.removesuffix(ending) for file in beside)
        raise UserError(
            f"{argument} must be a path or the name of a shipped file ({', '.join(names)}), "
            f"got {value}"
        )
    return named
