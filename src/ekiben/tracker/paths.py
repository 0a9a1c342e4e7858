"""Names of files inside runs and artifacts. They come from clients, and end up in paths on other people's disks."""

from ekiben.tracker.graphql import GraphQLError

PATH_LIMIT = 1024


def check_path(name: str) -> None:
    """Raises GraphQLError unless `name` is a plain relative path."""
    if not name or len(name) > PATH_LIMIT:
        raise GraphQLError(f"file name: 1 to {PATH_LIMIT} characters are wanted, not {len(name)}")
    if "\0" in name or "\\" in name or name.startswith("/") or not name.isprintable():
        raise GraphQLError(f"file name {name[:200]!r}: a relative path with / between its parts is wanted")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise GraphQLError(f"file name {name[:200]!r}: it may not hold empty parts, . or ..")
