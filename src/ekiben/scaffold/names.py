"""What a new model may be called. Pure."""

import keyword
import re
import unicodedata
from collections.abc import Container

import yaml

from ekiben.errors import UsageError

LONGEST = 40
"""Characters of a name. BentoML takes 63, but lines of the new files are to stay below 120."""


def check(name: str, taken: Container[str]) -> None:
    """UsageError unless `name` can be a Python module, a Bento, an entry of a YAML file, and as CamelCase a class.

    `taken` holds the modules and classes that the new files use for something else.
    """
    reason = _reason(name, taken)
    if reason:
        suggested = suggestion(name, taken)
        raise UsageError(
            f"{name!r} cannot be a model's name: {reason}",
            wanted=f"a to z, 0 to 9 and _, a letter first, no _ last, at most {LONGEST} characters",
            next_step=f"ekiben new {suggested}" if suggested else "choose another name",
        )


def suggestion(text: str, taken: Container[str]) -> str:
    """The name most like `text`; '' if none is."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()
    name = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    for candidate in (name, f"model_{name}"):
        shortened = candidate[:LONGEST].rstrip("_")
        if name and not _reason(shortened, taken):
            return shortened
    return ""


def class_name(name: str) -> str:
    """wine_quality -> WineQuality."""
    return "".join(word.capitalize() for word in name.split("_"))


def _reason(name: str, taken: Container[str]) -> str:
    if not re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", name):
        return "Python or BentoML would not accept it"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters"
    for word in (name, class_name(name)):
        if keyword.iskeyword(word):
            return f"{word} is a word of Python's own"
        if word in taken:
            return f"the service needs the name {word} for something else"
    if yaml.safe_load(name) != name:
        return f"YAML reads it as {yaml.safe_load(name)}"
    return ""
