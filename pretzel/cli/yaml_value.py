"""Values of options that stand for keys of a configuration."""

from typing import Any

from pretzel.errors import UserError


def yaml_value(option: str, text: str | None) -> Any:  # noqa: ANN401
    """Return the value that YAML gives to the text behind an option.

    Raises:
        UserError: If there is no text, or it is not YAML.
    """
    if text is None:
        raise UserError(f"{option} needs a value")

    from jsonargparse import get_loader

    try:
        return get_loader("yaml")(text)
    except Exception as error:  # of the YAML library, whichever the loader uses
        reason = " ".join(str(error).split())
        raise UserError(f"{option}: not valid YAML ({reason})") from error
