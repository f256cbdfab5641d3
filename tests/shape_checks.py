"""What jaxtyping's import hook decorates the packages with, at a fraction of its cost.

Jaxtyping's own decorator checks every argument twice, and binds the signature at every call, of
functions without shapes as well; that was more than half of the time of the laws. Here arguments
are checked once, in a scope of their own, and functions without shapes by beartype alone. The check
is made when a function is called first: most are not, in one process. In each test the first
:data:`FIRST` calls of a function are checked, and of those behind them, which are a loop's, one in
:data:`ONE_IN`.
"""

import dataclasses
import functools
import inspect
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

FIRST = 64
ONE_IN = 16

_jaxtyped = jaxtyping.jaxtyped
_check = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
_tests = 0


def begin_test():
    """Check the first calls of every function anew."""
    global _tests
    _tests += 1


def _decorator(*, typechecker):
    def decorate(target):
        if not inspect.isclass(target):
            return _sampled(target, typechecker)
        if dataclasses.is_dataclass(target) and "__init__" in vars(target):
            target.__init__ = _sampled(target.__init__, typechecker)
        return target

    return decorate


def _sampled(target, typechecker):
    """Return a function that checks the first calls in a test, and some of the others."""
    checked, calls, test = None, 0, 0

    @functools.wraps(target)
    def sometimes(*args, **kwargs):
        nonlocal checked, calls, test
        if test != _tests:
            calls, test = 0, _tests
        calls += 1
        if calls > FIRST and calls % ONE_IN:
            return target(*args, **kwargs)
        if checked is None:
            checked = _checked(target, typechecker)
        return checked(*args, **kwargs)

    return sometimes


def _checked(target, typechecker):
    if _names_what_is_missing(target):
        return _jaxtyped(typechecker=typechecker)(target)
    checked = _check(target)
    if not any("jaxtyping" in str(hint) for hint in target.__annotations__.values()):
        return checked

    def in_a_scope(*args, **kwargs):
        with _jaxtyped("context"):
            return checked(*args, **kwargs)

    return in_a_scope


def _names_what_is_missing(function):
    """Whether a hint names what is imported for types alone."""
    try:
        typing.get_type_hints(function)
    except NameError:
        return True
    return False


def install():
    """Let modules that are imported from now on be decorated so."""
    jaxtyping.jaxtyped = _decorator
