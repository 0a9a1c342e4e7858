"""What a load test sends: golden examples as they are or in another mix of rows, or requests made up from a service's
OpenAPI document. Pure: the same seed gives the same requests.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Self

from ekiben.errors import EkibenError, NotFoundError, UnsupportedError, UsageError
from ekiben.loadtest.golden import Golden, GoldenExample
from ekiben.loadtest.schemas import resolved, sample

COUNT = 200
"""Different requests that are made; they are sent in turn."""
MAX_BYTES = 32 * 1024 * 1024  # of all requests together
MOST_ROWS = 100_000
JSON = "application/json"

_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?(?::(\d{1,6}))?")


@dataclass(frozen=True)
class Mix:
    """How many rows a request has: (fewest, most, weight) of each kind; within a kind each number is as likely."""

    kinds: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """`8`, `1-8`, or with weights `1:9,32:1`: nine requests in ten have one row, the tenth has 32."""
        kinds = []
        for part in text.split(","):
            match = _PART.fullmatch(part.strip())
            low, high, weight = (int(n) if n else 0 for n in match.groups()) if match else (0, 0, 0)
            high = high or low
            if not 1 <= low <= high <= MOST_ROWS:
                raise UsageError(
                    f"not a mix of rows: {text!r}",
                    wanted="ROWS, FROM-TO, or several of them with weights, such as 1:9,32:1",
                )
            kinds.append((low, high, weight or 1))
        return cls(tuple(kinds))

    def draw(self, random: Random) -> int:
        low, high, _ = random.choices(self.kinds, [weight for *_, weight in self.kinds])[0]
        return random.randint(low, high)


def mixed(golden: Golden, mix: Mix, seed: int) -> Golden:
    """Requests of as many rows as `mix` says, drawn from the examples' rows, with the answers to those rows.

    For models that answer row by row: every value of a request and of its answer is a list with one item for each row.
    UsageError for examples of another kind.
    """
    random = Random(seed)
    rows = [row for example in golden.examples for row in _rows(golden, example)]
    examples: list[GoldenExample] = []
    size = 0
    while len(examples) < COUNT and size < MAX_BYTES:
        drawn = [random.choice(rows)]
        same = [row for row in rows if row.route == drawn[0].route]
        drawn += random.choices(same, k=mix.draw(random) - 1)
        examples.append(_joined(drawn))
        size += len(examples[-1].body)
    return Golden(version=1, route=golden.route, examples=tuple(examples))


def made_up(document: Mapping[str, Any], mix: Mix | None, seed: int) -> Golden:
    """Requests to every endpoint of a service, by the schemas of its OpenAPI document; what answers they must get is
    not known, so that only the answers' schema can be checked.

    Endpoints whose requests cannot be made up are left out. NotFoundError when there is no other.
    """
    random = Random(seed)
    found: list[list[GoldenExample]] = []
    refused: list[str] = []
    endpoints = _endpoints(document)
    for route, request, answer in endpoints:
        try:
            found.append(_made_up(route, request, answer, mix, random, COUNT // len(endpoints)))
        except UnsupportedError as error:
            refused.append(f"POST {route}: {error.seen}")
    if not found:
        raise NotFoundError(
            "; ".join(refused) or "the service's OpenAPI document names no endpoint that takes JSON",
            wanted="an endpoint whose requests can be made up from its schema",
            next_step="give examples: --golden FILE",
        )
    in_turn = [example for each in zip(*found, strict=False) for example in each]
    return Golden(version=1, route=in_turn[0].route, examples=tuple(in_turn))


def digest(golden: Golden) -> str:
    """Of all that is sent, in its order; not of the answers."""
    hashed = hashlib.sha256()
    for example in golden.examples:
        hashed.update(f"{golden.route_of(example)} {len(example.body)} ".encode())
        hashed.update(example.body)
    return hashed.hexdigest()[:16]


def for_other(golden: Golden, other: Golden) -> Golden:
    """The requests of `golden` with the answers that `other` knows to them; where it knows none, an answer needs only
    the same keys as `golden`'s, with values of any kind."""
    known = {(other.route_of(example), example.body): example.response for example in other.examples}
    examples = []
    for example in golden.examples:
        response = known.get((golden.route_of(example), example.body))
        update = {"response": response} if response is not None else {"response": None, "contract": _keys(example)}
        examples.append(example.model_copy(update=update))
    return golden.model_copy(update={"examples": tuple(examples)})


def shares(golden: Golden) -> dict[str, float]:
    """Of the requests, by endpoint ("POST /predict")."""
    routes = [golden.route_of(example) for example in golden.examples]
    return {f"POST {route}": routes.count(route) / len(routes) for route in dict.fromkeys(routes)}


def _keys(example: GoldenExample) -> dict[str, Any]:
    if example.contract is not None:
        return dict(example.contract)
    return {"type": "object", "required": list(example.response)} if isinstance(example.response, Mapping) else {}


def _rows(golden: Golden, example: GoldenExample) -> list[GoldenExample]:
    """The example row by row."""
    request, response = example.request, example.response
    columns = [*request.values(), *response.values()] if _columnar(request) and _columnar(response) else []
    lengths = {len(column) for column in columns}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(
            "these golden examples are not rows: another number of rows cannot be made of them",
            wanted='lists with one item for each row, as in {"rows": [[…]]} with the answer {"classes": [3]}',
            next_step="leave --rows out, or give examples of the wanted size: --golden FILE",
        )
    route = golden.route_of(example)
    return [
        GoldenExample(
            request={key: [column[i]] for key, column in request.items()},
            response={key: [column[i]] for key, column in response.items()},
            route=route,
        )
        for i in range(lengths.pop())
    ]


def _columnar(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(column, list) for column in value.values())


def _joined(rows: Sequence[GoldenExample]) -> GoldenExample:
    first = rows[0]
    return GoldenExample(
        request={key: [row.request[key][0] for row in rows] for key in first.request},
        response={key: [row.response[key][0] for row in rows] for key in first.response},
        route=first.route,
    )


def _endpoints(document: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(route, schema of the request, schema of the answer) of each endpoint that takes JSON by POST."""
    found = []
    try:
        for route, methods in document["paths"].items():
            content = methods.get("post", {}).get("requestBody", {}).get("content", {})
            if JSON not in content or "{" in route:
                continue
            answers = methods["post"].get("responses", {}).get("200", {}).get("content", {})
            schemas = [resolved(each.get(JSON, {}).get("schema", {}), document) for each in (content, answers)]
            found.append((route, *schemas))
    except (AttributeError, KeyError, TypeError):
        raise EkibenError(
            "the service's OpenAPI document cannot be read",
            wanted="paths, each with its requestBody and responses",
            next_step="give examples: --golden FILE",
        ) from None
    return found


def _made_up(route: str, request: Any, answer: Any, mix: Mix | None, random: Random, count: int) -> list[GoldenExample]:
    examples: list[GoldenExample] = []
    size = 0
    while len(examples) < max(1, count) and size < MAX_BYTES:
        items = mix.draw(random) if mix else None
        made = GoldenExample(request=sample(request, random, items), response=None, contract=answer, route=route)
        examples.append(made)
        size += len(made.body)
    return examples
