"""Words of captions and questions: articles, numbers, plurals."""

NUMBERS = {2: "two", 3: "three", 4: "four"}
_IRREGULAR = {
    "fish": "fish", "sheep": "sheep", "deer": "deer", "mouse": "mice", "goose": "geese",
    "foot": "feet", "tooth": "teeth", "leaf": "leaves", "knife": "knives", "wolf": "wolves",
    "child": "children", "ox": "oxen", "tomato": "tomatoes", "potato": "potatoes",
}  # fmt: skip


def with_article(noun: str) -> str:
    """Return a noun behind ``a`` or ``an``."""
    is_an = noun[0] in "aeiou" and not noun.startswith(("uni", "eu", "ewe", "one"))
    return f"{'an' if is_an else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return the plural of a noun, by its last word."""
    *before, last = noun.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = f"{last[:-1]}ies"
    else:
        last += "s"
    return " ".join([*before, last])


def phrase(kind: str, colour: str | None) -> str:
    """Return colour and kind, or the kind alone."""
    return kind if colour is None else f"{colour} {kind}"
