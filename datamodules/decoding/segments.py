"""Reads the layout of interleaved documents in shards.

``key.json`` holds ``segments``, in reading order::

    {"segments": [{"text": "a red circle"},
                  {"image": "0.png"},
                  {"text": "what shape is it?"},
                  {"text": "circle", "role": "target"},
                  {"text": "now make it blue"},
                  {"image": "1.png"}]}

Texts are read (``role`` ``context``, the default) or supervised (``target``). An image is named by
the part of its member's name behind the key: ``0.png`` is ``key.0.png``. A document may have no
image, or show one twice, and at most a thousand in all.
"""

from collections.abc import Sequence
from typing import Any

from datamodules.decoding.excerpt import excerpt
from datamodules.reading.tar_shard import RawSample
from datamodules.sample import Unusable
from pretzel.sequence.document import Image, Text

FIELD = "segments"
_MOST_IMAGES = 1000  # each is decoded, though it be the same one
_ROLES: tuple[dict[str, str], ...] = ({}, {"role": "context"}, {"role": "target"})


def parse_segments(
    raw: RawSample,
    entries: Any,  # noqa: ANN401
    suffixes: Sequence[str],
) -> tuple[tuple[Text | Image, ...], list[str]]:
    """Return the segments of a document, and the members that hold its images, in order.

    Args:
        raw: The members.
        entries: What its JSON holds.
        suffixes: Ends of the names of images.

    Raises:
        Unusable: If it is not a list of texts and images, there is no such image, or too many.
    """
    if not isinstance(entries, list) or not entries:
        raise _unknown(f"{FIELD} must be a list of texts and images, not {excerpt(entries)}")
    segments: list[Text | Image] = []
    members: list[str] = []
    for number, entry in enumerate(entries):
        place = f"segment {number}"
        match entry:
            case {"text": str(text), **rest} if rest in _ROLES:
                segments.append(Text(content=text, role=entry.get("role", "context")))
            case {"image": str(name), **rest} if not rest:
                member = name.lower()
                if member not in raw.members or member.rpartition(".")[2] not in suffixes:
                    raise Unusable(
                        "no image",
                        f"{place} names the image {excerpt(name)}, but there is no image "
                        f"{excerpt(f'{raw.key}.{name}')}",
                    )
                members.append(member)
                segments.append(Image())
            case _:
                raise _unknown(
                    f"{place} must be {{'text': ..., 'role': 'context' or 'target'}} or "
                    f"{{'image': 'NAME.png'}}, not {excerpt(entry)}"
                )
    if len(members) > _MOST_IMAGES:
        raise Unusable("too large", f"{FIELD} show {len(members)} images, not {_MOST_IMAGES}")
    if not members and not any(isinstance(s, Text) and s.content.strip() for s in segments):
        raise _unknown(f"{FIELD} hold neither text nor image")
    return tuple(segments), members


def _unknown(detail: str) -> Unusable:
    return Unusable("unknown form", detail)
