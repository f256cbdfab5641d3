"""What jaxtyping's import hook decorates the packages with, at a third of its cost.

Jaxtyping's own decorator checks every argument twice, and binds the signature at every call, of
functions without shapes as well; that was half of the time of the laws. Here arguments are checked
once, in a scope of their own, and functions without shapes by beartype alone.
"""

import functools
import inspect

import jaxtyping
from beartype import BeartypeConf, beartype

_jaxtyped = jaxtyping.jaxtyped
_check = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def _decorator(*, typechecker):
    def decorate(target):
        hints = [] if inspect.isclass(target) else target.__annotations__.values()
        if inspect.isclass(target) or any(isinstance(hint, str) for hint in hints):
            return _jaxtyped(typechecker=typechecker)(target)  # knows names that are not there yet
        checked = _check(target)
        if not any("jaxtyping" in str(hint) for hint in hints):
            return checked

        @functools.wraps(target)
        def in_a_scope(*args, **kwargs):
            with _jaxtyped("context"):
                return checked(*args, **kwargs)

        return in_a_scope

    return decorate


def install():
    """Let modules that are imported from now on be decorated so."""
    jaxtyping.jaxtyped = _decorator
