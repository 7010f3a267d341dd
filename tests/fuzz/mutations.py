"""Seeded damage: what breaks parsers, at random places."""

from __future__ import annotations

import random

#: Extremes, nesting, references, other types, other encodings.
TOKENS = (
    b"-1", b"0", b"1e400", b"nan", b"99999999999999999999", b"2147483648", b"null", b"true",
    b"[]", b"{}", b"[" * 200, b"{a: " * 200, b"&a [*a, *a]", b"*a", b"!!python/object:os.system",
    b"../../etc/passwd", b"/etc/passwd", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\n\n",
    b'"', b"'", b":", b",", b"${HOME}", b"a" * 5000, b"PK\x03\x04", b"\x80\x05.", b"|O",
)  # fmt: skip
KINDS = ("set", "insert", "token", "drop", "cut", "copy", "digit")
MOST = 6


def edited(raw: bytes, where: float, what: str, value: int) -> bytes:
    """Apply one edit to contents; ``where`` is a part of their length, ``value`` a byte."""
    at = int(where * len(raw))
    if what == "set":
        return raw[:at] + bytes([value]) + raw[at + 1 :]
    if what == "insert":
        return raw[:at] + bytes([value]) + raw[at:]
    if what == "token":
        return raw[:at] + TOKENS[value % len(TOKENS)] + raw[at + value % 3 :]
    if what == "drop":
        return raw[:at] + raw[at + value :]
    if what == "cut":
        return raw[:at]
    if what == "copy":
        return raw[:at] + raw[max(0, at - value) :]
    digits = [i for i in range(at, min(at + 200, len(raw))) if 48 <= raw[i] < 58]
    if digits:
        return raw[: digits[0]] + str(value).encode() + raw[digits[0] + 1 :]
    return raw


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """One to six edits; half of the time only one, so that most of the contents stay good."""
    for _ in range(1 if rng.random() < 0.5 else rng.randint(2, MOST)):
        raw = edited(raw, rng.random(), rng.choice(KINDS), rng.randrange(256))
    return raw
