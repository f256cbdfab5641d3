"""Pictures of many kinds as bytes, with colour profiles written by hand after ICC.1:2001."""

import io
import struct
import zlib

from PIL import Image


def saved(picture, kind="PNG", **options):
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def quarters(width=24, height=16):
    """Return a picture with another colour in each quarter, which every turn and flip changes."""
    picture = Image.new("RGB", (width, height), "red")
    picture.paste("lime", (width // 2, 0, width, height // 2))
    picture.paste("blue", (0, height // 2, width // 2, height))
    picture.paste("white", (width // 2, height // 2, width, height))
    return picture


def _fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _profile(space, tags, connection=b"XYZ "):
    """Return an ICC profile of version 2 with some tags."""
    tags = tags | {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"t\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + _fixed(0.9642, 1.0, 0.8249),
    }
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += padded
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = bytes(4) + bytes(4) + bytes.fromhex("02400000") + kind + space + connection
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.8249) + bytes(48)
    body = header + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", len(body)) + body[4:]


def _gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def rgb_profile(gamma, swapped=False):
    """Return a profile with the primaries of sRGB, perhaps with red and blue exchanged."""
    primaries = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)]
    names = (b"b", b"g", b"r") if swapped else (b"r", b"g", b"b")
    tags = {}
    for name, place in zip(names, primaries, strict=True):
        tags[name + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(*place)
        tags[name + b"TRC"] = _gamma(gamma)
    return _profile(b"RGB ", tags)


def grey_profile(gamma):
    """Return a profile of grey values."""
    return _profile(b"GRAY", {b"kTRC": _gamma(gamma)})


def cmyk_profile():
    """Return a profile by which full cyan is a mid grey, full black is black, all else is white."""
    straight = bytes(range(256))
    corners = b"".join(
        bytes([0 if corner & 1 else 128 if corner & 8 else 255, 128, 128])
        for corner in range(16)  # Lab; cyan is first
    )
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += straight * 4 + corners + straight * 3
    return _profile(b"CMYK", {b"A2B0": table}, b"Lab ")


def bomb(width, height):
    """Return a PNG that says to be as large, in few bytes."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )
