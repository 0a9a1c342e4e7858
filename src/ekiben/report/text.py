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
    """`90 s`, `12 min`, `23 h 59 min`."""
    if seconds < 120 or seconds != round(seconds):
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return " ".join(f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if count)
