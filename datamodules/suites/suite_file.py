"""A file of a suite, and the one sentence about it where it is of another form."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from datamodules.sources.table import Row, read_table
from pretzel.errors import UserError

Entry = TypeVar("Entry", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class SuiteFile:
    """A file that a suite is read from.

    Attributes:
        suite: Name of the suite.
        argument: Argument that names the file.
        path: The file.
        form: The published form, as it goes on from "must be".
    """

    suite: str
    argument: str
    path: Path
    form: str

    def wrong(self, why: str) -> UserError:
        """Return the error of a file that is of another version, or none."""
        return UserError(
            f"{self.suite}: {str(self.path)!r} {why}: {self.argument} must be {self.form}"
        )

    def text(self) -> str:
        """Return the content.

        Raises:
            UserError: If there is no such file, or it is no text.
        """
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise self.wrong(f"cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise self.wrong("is no text in UTF-8") from None

    def json(self) -> Any:  # noqa: ANN401
        """Return the content as JSON.

        Raises:
            UserError: If it is none.
        """
        return self._loaded(self.text(), "")

    def json_lines(self) -> list[tuple[str, Any]]:
        """Return the place and the value of each line that is not empty.

        Raises:
            UserError: If one is no JSON.
        """
        lines = enumerate(self.text().splitlines(), start=1)
        return [(f"line {n}", self._loaded(t, f"line {n}: ")) for n, t in lines if t.strip()]

    def rows(self) -> list[Row]:
        """Return the rows of a table.

        Raises:
            UserError: If it is none.
        """
        if not self.path.is_file():
            raise self.wrong("cannot be read (No such file)")
        try:
            return read_table([self.path])
        except UserError as error:
            raise self.wrong(f"is no table ({error})") from None

    def entry(self, kind: type[Entry], value: object, place: str) -> Entry:
        """Return an entry of the file, checked.

        Raises:
            UserError: If it lacks something, or holds another value than is published.
        """
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join([place, *map(str, first["loc"])])
            why = first["msg"].partition(" or instance of ")[0]  # a class of ours
            raise self.wrong(f"is of another version ({where}: {why})") from None

    def _loaded(self, text: str, place: str) -> Any:  # noqa: ANN401
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"is no JSON ({place}{error})") from None
