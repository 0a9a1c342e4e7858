"""One GraphQL request, from its JSON to its JSON."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ekiben.errors import EkibenError
from ekiben.tracker import syntax
from ekiben.tracker.graph.base import Context, User
from ekiben.tracker.graph.mutations import Mutation
from ekiben.tracker.graph.queries import Query
from ekiben.tracker.graphql import GraphQLError, choose, execute
from ekiben.tracker.state import State
from ekiben.tracker.urls import Urls

CACHED_LENGTH = 10_000  # characters; the longest that a client sends has under 6,000
JOIN_PARTS = "completeMultipartUploadArtifact"


def answer(state: State, user: User, urls: Urls, request: Mapping[str, Any]) -> dict[str, Any]:
    """The response's JSON: `data`, or `errors` and `data` null.

    A query reads one moment; a mutation is all or nothing.
    """
    name = "?"
    try:
        document, operation = _operation(request)
        name = operation.name or "?"
        state.count(state.operations, name)
        variables = request.get("variables") or {}
        if not isinstance(variables, dict):
            raise GraphQLError("variables: an object is wanted")
        mutation = operation.kind == "mutation"
        # Joining gigabytes changes no row, and must not keep every other writer waiting.
        rows_change = mutation and any(getattr(f, "name", "") != JOIN_PARTS for f in operation.selection)
        with state.store.write() if rows_change else state.store.read() as db:
            context = Context(db, state.blobs, state.uploads, user, urls, state.protected_aliases)
            root = Mutation(context) if mutation else Query(context)
            return {"data": execute(document, operation, variables, root)}
    except GraphQLError as error:
        message = str(error)
        if error.unknown:
            state.count(state.unknown, name)
            message = f"ekiben's tracker does not know the operation {name} wholly: {message}"
        return _errors(message)
    except syntax.GraphQLSyntaxError as error:
        return _errors(f"not a GraphQL request: {error}")
    except EkibenError as error:
        return _errors(str(error))


# A client sends the same few queries over and over; trees are not changed by answering.
_parse = lru_cache(maxsize=128)(syntax.parse)


def _operation(request: Mapping[str, Any]) -> tuple[syntax.Document, syntax.Operation]:
    text, name = request.get("query"), request.get("operationName")
    if not isinstance(text, str) or not isinstance(name, str | None):
        raise syntax.GraphQLSyntaxError("query must be text, and operationName too if there is one")
    document = _parse(text) if len(text) < CACHED_LENGTH else syntax.parse(text)
    return document, choose(document, name)


def _errors(message: str) -> dict[str, Any]:
    return {"data": None, "errors": [{"message": message}]}
