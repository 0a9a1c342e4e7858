"""Text from elsewhere, made safe to show. Pure."""

import unicodedata

MAX_SHOWN = 400


def printable(text: str) -> str:
    """On one line and without what could steer a terminal, break XML or turn the reading direction.

    Only what Unicode calls printable stays; spaces and line breaks become one space, anything else U+FFFD.
    """
    flat = "".join(c if c.isprintable() else " " if c.isspace() or _is_break(c) else "\ufffd" for c in text)
    return " ".join(flat.split())


def _is_break(c: str) -> bool:
    return unicodedata.category(c) in ("Zl", "Zp", "Zs")


def shortened(text: str, most: int = MAX_SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def duration(seconds: float) -> str:
    """`90 s`, `12 min`, `1.5 h`: as short as it stays exact to a hundredth."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size and round(seconds / size, 2) * size == seconds:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
