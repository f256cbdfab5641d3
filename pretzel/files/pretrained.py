"""Folders of pretrained models of other libraries: what they raise becomes one sentence."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from pretzel.errors import UserError

_MALFORMED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    SafetensorError,
)
"""Exceptions of transformers and diffusers over malformed files."""


@contextmanager
def refused(sentence: str, missing_package: str | None = None) -> Iterator[None]:
    """Turn what a library raises over malformed files into one sentence, and the reason.

    Args:
        sentence: Rule and value.
        missing_package: The sentence where a package is missing; None raises as it is.

    Raises:
        UserError: With that sentence.
    """
    from huggingface_hub.errors import StrictDataclassError  # slow, and loaded by then

    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        if missing_package is None:
            raise
        raise UserError(f"{missing_package} ({first_line(error)})") from error
    except (*_MALFORMED, StrictDataclassError) as error:
        raise UserError(f"{sentence} ({first_line(error)})") from error


def check_complete(
    name: str, missing: Collection[str], mismatched: Collection[Sequence[Any]] = ()
) -> None:
    """Refuse a model of which weights are missing: libraries go on with random numbers.

    Args:
        name: Of the model.
        missing: Names of weights.
        mismatched: Names of weights of other shapes, each with its shapes.

    Raises:
        UserError: Naming the first one.
    """
    lacking = [*missing, *(key for key, *_ in mismatched)]
    if lacking:
        raise UserError(
            f"name must have all weights of its configuration, in its shapes, but {name} lacks "
            f"{min(lacking)} ({len(lacking)} such tensors)"
        )


def first_line(error: Exception) -> str:
    """Return what an exception says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    # KeyError, TypeError and their like say what happened only with their name
    is_vague = isinstance(error, LookupError | TypeError | AttributeError | ArithmeticError)
    return f"{type(error).__name__}: {text}" if is_vague else text
