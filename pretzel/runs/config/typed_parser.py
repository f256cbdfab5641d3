"""Parser of configurations that builds and calls only what the types of arguments ask for.

jsonargparse compares classes with the type of their argument. But it calls any function that a
``class_path`` names in the place of a factory, and whatever is named in an argument of any type:
``class_path: os.system`` would be run. Here such a name is refused while parsing, before anything
is called; the module that it is in has then been imported.
"""

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace
from jsonargparse._typehints import sub_defaults
from typing_extensions import override

from pretzel.runs.config.class_paths import import_name

_is_checked = ContextVar("_is_checked", default=False)
"""Whether a parser is checking what has been parsed."""

_GENERIC_MODULES = frozenset({"builtins", "collections", "collections.abc", "typing"})


class TypedParser(ArgumentParser):
    """Refuses what a configuration names in the place of a part and is none.

    Under ``class_path`` go a class of the type that the argument asks for, and a function that is
    annotated to return one; nothing goes into an argument whose type is no class. The parsers of
    the arguments of a class are of the same class as its own parser, so this holds at every depth.
    """

    @override
    def parse_object(self, obj: Any, *args: Any, **kwargs: Any) -> Namespace:
        if _is_checked.get() and isinstance(obj, Namespace):
            # It has been parsed, and is checked as a part of what it stands in: no need to parse it
            # once more, as jsonargparse would at every depth
            try:
                self.validate(obj)
            except (TypeError, KeyError) as error:
                self.error(str(error), error)
            return obj
        self._check(obj, is_parsed=False)  # first: a signature that does not fit matters less
        namespace: Namespace = super().parse_object(obj, *args, **kwargs)
        self._check(namespace, is_parsed=True)
        return namespace

    @override
    def _parse_common(
        self, cfg: Namespace, env: bool | None, defaults: bool, *args: Any, **kwargs: Any
    ) -> Namespace:
        # A parser around this one that fills in defaults has just done so here: doing it again is
        # doing all that lies deeper twice, and so on: the time would double with the depth.
        fills = defaults and not sub_defaults.get()
        namespace: Namespace = super()._parse_common(cfg, env, fills, *args, **kwargs)
        return namespace

    @override
    def validate(self, *args: Any, **kwargs: Any) -> None:
        token = _is_checked.set(True)
        try:
            super().validate(*args, **kwargs)
        finally:
            _is_checked.reset(token)

    @override
    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        namespace: Namespace = super().parse_args(*args, **kwargs)
        self._check(namespace, is_parsed=True)
        return namespace

    def _check(self, values: Any, *, is_parsed: bool) -> None:  # noqa: ANN401
        for action in self._actions if isinstance(values, dict | Namespace) else ():
            hint = getattr(action, "_typehint", None)
            for part in _parts(values.get(action.dest), is_parsed) if hint is not None else ():
                if not _fits(part, hint, is_parsed):
                    name = part if isinstance(part, str) else f"{part.__module__}.{part.__name__}"
                    # in jsonargparse's own words, which explain.py sums up
                    self.error(
                        f'Parser key "{action.dest}":\n'
                        f"  Problem with given class_path '{name}':\n"
                        f"    Import path {name} does not correspond to a subclass of "
                        f"{_asked_for(hint)}"
                    )


def _parts(value: object, is_parsed: bool) -> Iterator[Any]:
    """Yield the class paths in a value, and functions; those in the arguments of a class left out.

    A mapping that is not parsed yet may hold the arguments of a class that is not named again.
    """
    if isinstance(value, dict | Namespace) and "class_path" in value:
        yield value["class_path"]
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _parts(item, is_parsed)
    elif isinstance(value, dict) and is_parsed:
        for item in value.values():
            yield from _parts(item, is_parsed)
    elif inspect.isroutine(value):  # named as a plain string, and called by the part that gets it
        yield value


def _fits(part: Any, hint: Any, is_parsed: bool) -> bool:  # noqa: ANN401
    """Tell whether a class path, or a function, may stand in an argument."""
    asked = _classes(hint)
    target = import_name(part) if isinstance(part, str) else part
    if target is None:  # a short name; or none at all, which the parser explains
        return not is_parsed
    made = target if isinstance(target, type) else _returned(target)
    takes_any = any(base is Callable or _is_protocol(base) for base in asked)
    if target is part and (made is None or takes_any):
        return not _is_standard(target)  # what its stub says it returns, the parser has compared
    return made is hint or any(_is_one(made, base, target) for base in asked)


def _is_one(made: Any, base: Any, target: Any) -> bool:  # noqa: ANN401
    if _is_protocol(base):
        return isinstance(target, type)  # the parser has compared its methods
    if not isinstance(made, type) or not issubclass(made, base):
        return False
    return base is not Callable or not _is_standard(target)


def _is_protocol(hint: Any) -> bool:  # noqa: ANN401
    return bool(getattr(hint, "_is_protocol", False))


def _is_standard(target: Any) -> bool:  # noqa: ANN401
    """Tell what is of Python's own library, where an argument takes anything that can be called."""
    return str(getattr(target, "__module__", None)).partition(".")[0] in sys.stdlib_module_names


def _returned(function: Any) -> Any:  # noqa: ANN401
    try:
        returned = get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):  # annotations that mean nothing; or no function
        return None
    return get_origin(returned) or returned


@cache
def _classes(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Return the classes of which an argument takes objects, or what makes objects of them."""
    hint = getattr(hint, "__value__", hint)  # of an alias
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _classes(inner[0])
    if hint is Callable or origin is Callable:
        return (_classes(inner[-1]) if inner else ()) or (Callable,)
    if _is_protocol(hint) and "__call__" in vars(hint):
        return _classes(get_type_hints(hint.__call__).get("return")) or (hint,)
    if origin in (Union, types.UnionType) or getattr(origin, "__module__", "") in _GENERIC_MODULES:
        return tuple(dict.fromkeys(base for arg in inner for base in _classes(arg)))
    base = origin or hint
    is_class = isinstance(base, type) and base is not Any and base.__module__ != "builtins"
    return (base,) if is_class else ()


def _asked_for(hint: Any) -> str:  # noqa: ANN401
    asked = _classes(hint)
    if not asked:
        name = getattr(hint, "__name__", str(hint))
        return f"part that goes here: the type of this argument, {name}, is no class"
    if asked == (Callable,):
        return (
            "part that goes here, where a class goes whose objects can be called, or a function by "
            "its bare name, neither of them Python's own"
        )
    names = " or ".join(base.__name__ for base in asked)
    return f"{names}: a class of this type goes here, or a function annotated to return one"
