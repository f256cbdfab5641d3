"""What jaxtyping's import hook decorates the packages with, at half of its cost.

Jaxtyping's own decorator checks every argument twice, and binds the signature at every call, of
functions without shapes as well; that was more than half of the time of the laws. Here arguments
are checked once, in a scope of their own, and functions without shapes by beartype alone.
"""

import functools
import inspect
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

_jaxtyped = jaxtyping.jaxtyped
_check = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def _decorator(*, typechecker):
    def decorate(target):
        if inspect.isclass(target) or _names_what_is_missing(target):
            return _jaxtyped(typechecker=typechecker)(target)
        checked = _check(target)
        if not any("jaxtyping" in str(hint) for hint in target.__annotations__.values()):
            return checked

        @functools.wraps(target)
        def in_a_scope(*args, **kwargs):
            with _jaxtyped("context"):
                return checked(*args, **kwargs)

        return in_a_scope

    return decorate


def _names_what_is_missing(function):
    """Whether a hint names what is defined later, or imported for types alone."""
    try:
        typing.get_type_hints(function)
    except NameError:
        return True
    return False


def install():
    """Let modules that are imported from now on be decorated so."""
    jaxtyping.jaxtyped = _decorator
