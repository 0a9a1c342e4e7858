"""Versions and aliases of a collection: the numbers and names under which an artifact is found in it."""

import sqlite3

from ekiben.tracker.graph.base import Context
from ekiben.tracker.graphql import GraphQLError
from ekiben.tracker.paths import check_name
from ekiben.tracker.store import now


def place(context: Context, collection: int, artifact: int) -> int:
    """Gives the artifact the collection's next number, unless it has one there. Returns the membership."""
    found = context.value("SELECT id FROM memberships WHERE collection = ? AND artifact = ?", collection, artifact)
    if found is None:
        context.db.execute(
            "INSERT INTO memberships (collection, artifact, version, created_at)"
            " SELECT id, ?, next_version, ? FROM collections WHERE id = ?",
            (artifact, now(), collection),
        )
        context.db.execute(
            "UPDATE collections SET next_version = next_version + 1, updated_at = ? WHERE id = ?", (now(), collection)
        )
        return place(context, collection, artifact)
    return int(found)


def set_alias(context: Context, collection: int, alias: str, artifact: int) -> None:
    """Makes the alias name this artifact's version; whatever it named before loses it."""
    check_name("alias", alias)
    refuse_protected(context, alias)
    membership = context.value("SELECT id FROM memberships WHERE collection = ? AND artifact = ?", collection, artifact)
    if membership is None:
        raise GraphQLError(f"the artifact is not in the collection, so {alias!r} cannot name it there")
    context.db.execute(
        "INSERT INTO aliases (collection, alias, membership) VALUES (?, ?, ?)"
        " ON CONFLICT (collection, alias) DO UPDATE SET membership = excluded.membership",
        (collection, alias, membership),
    )


def remove_alias(context: Context, collection: int, alias: str, artifact: int) -> None:
    """Takes the alias from this artifact's version; if it has moved on meanwhile, it stays where it is."""
    refuse_protected(context, alias)
    context.db.execute(
        "DELETE FROM aliases WHERE collection = ? AND alias = ? AND membership IN"
        " (SELECT id FROM memberships WHERE collection = ? AND artifact = ?)",
        (collection, alias, collection, artifact),
    )


def settle_latest(db: sqlite3.Connection, collection: int) -> None:
    """After a version has gone: `latest` names the newest that is left."""
    db.execute(
        "INSERT OR IGNORE INTO aliases (collection, alias, membership)"
        " SELECT collection, 'latest', id FROM memberships WHERE collection = ? ORDER BY version DESC LIMIT 1",
        (collection,),
    )


def refuse_protected(context: Context, alias: str) -> None:
    if alias in context.protected_aliases and not context.user.admin:
        raise GraphQLError(f"alias {alias!r} is protected; a key that may change it is needed")
