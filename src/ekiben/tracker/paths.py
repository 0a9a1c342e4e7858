"""Names that come from clients, of files inside runs and artifacts and of things: they end up in people's paths."""

import re

from ekiben.tracker.graphql import GraphQLError

PATH_LIMIT = 1024
NAME_LIMIT = 128
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_IN_NAMES = re.compile(r"[/\\:#?%]")


def check_path(name: str) -> None:
    """Raises GraphQLError unless `name` is a plain relative path."""
    if not name or len(name) > PATH_LIMIT:
        raise GraphQLError(f"file name: 1 to {PATH_LIMIT} characters are wanted, not {len(name)}")
    if _CONTROL.search(name) or "\\" in name or name.startswith("/"):
        raise GraphQLError(f"file name {name[:200]!r}: a relative path with / between its parts is wanted")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise GraphQLError(f"file name {name[:200]!r}: it may not hold empty parts, . or ..")


def check_name(what: str, name: str) -> None:
    """Raises GraphQLError unless `name` can name an entity, project, run, collection, type or alias."""
    if not name or len(name) > NAME_LIMIT:
        raise GraphQLError(f"{what} name: 1 to {NAME_LIMIT} characters are wanted, not {len(name)}")
    if name in (".", "..") or _CONTROL.search(name) or _IN_NAMES.search(name):
        raise GraphQLError(f"{what} name {name!r}: it may not hold any of / \\ : # ? % or control characters")
