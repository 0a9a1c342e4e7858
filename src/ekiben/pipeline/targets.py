"""What is load-tested: an address, or a Bento that is served for the time of the test; and what is sent to it."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ekiben.errors import IntegrityError, NotFoundError, UnavailableError, UsageError
from ekiben.files import write_atomically
from ekiben.loadtest.golden import Golden
from ekiben.loadtest.payloads import Mix, made_up, mixed
from ekiben.packaging import lineage, store
from ekiben.pipeline.serving import serving
from ekiben.recipe import GOLDEN
from ekiben.types import BentoRef, ModelVersion

MAX_DOCUMENT = 16 * 1024 * 1024  # bytes
TIME_OUT_S = 10.0


@dataclass(frozen=True)
class Payload:
    """What is sent: the examples, as a file, and in words where they come from."""

    golden: Golden
    path: Path
    source: str


@dataclass(frozen=True)
class Target:
    """`name` is what a person gave: an address or a Bento's tag."""

    name: str
    bento: store.Stored | None = None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """NotFoundError for a Bento that the store does not have, UsageError for what is no address."""
        if "://" not in text:
            found = store.existing_bento(text)
            return cls(found.tag, found)
        address = urlsplit(text)
        if address.scheme not in ("http", "https") or not address.hostname or address.username or address.query:
            raise UsageError(f"not an address: {text!r}", wanted="http://HOST:PORT, or a Bento's tag")
        if address.path.strip("/"):
            raise UsageError(
                f"{text} names a path", wanted="the service's address alone: what is asked there, the examples say"
            )
        return cls(text.rstrip("/"))

    @property
    def service(self) -> str:
        """The name of its table in slo.toml; '' for an address."""
        return self.bento.tag.partition(":")[0] if self.bento else ""

    @property
    def subject(self) -> BentoRef | None:
        """The Bento with its model; None where it is not known to come from W&B."""
        labels = self.bento.labels if self.bento else {}
        if self.bento is None or not {lineage.VERSION, lineage.CONTENT} <= set(labels):
            return None
        name, _, version = self.bento.tag.partition(":")
        model = ModelVersion.parse(labels[lineage.VERSION], labels.get(lineage.DIGEST, ""))
        return BentoRef(name=name, version=version, digest=labels[lineage.CONTENT], model=model)

    @contextlib.contextmanager
    def reached(self, scratch: Path) -> Iterator[str]:
        """The address to ask; a Bento is served meanwhile, from a folder below `scratch`."""
        if self.bento is None:
            yield self.name
            return
        with serving(self.bento, scratch / self.bento.tag.replace(":", "-")) as url:
            yield url

    def payload(self, url: str, golden: Path | None, rows: str, seed: int, to: Path) -> Payload:
        """The golden examples of `golden`, else of the Bento's model, else requests made up from what the service at
        `url` says of itself; with `rows` in that mix. What is made is written to the file `to`."""
        mix = Mix.parse(rows) if rows else None
        path = golden or self._own_golden()
        if path is not None:
            examples, source = Golden.read(path), "golden examples"
            if mix is None:
                return Payload(examples, path, source)
            made, source = mixed(examples, mix, seed), f"rows of the golden examples, {rows} to a request"
        else:
            made = made_up(_document(url), mix, seed)
            source = "made up from the service's OpenAPI schema: answers are checked by their schema only"
        write_atomically(to, made.model_dump_json())
        return Payload(made, to, source)

    def _own_golden(self) -> Path | None:
        models = [store.model(tag) for tag in store.pinned_models(self.bento)] if self.bento else []
        files = [model.path / GOLDEN for model in models if model and (model.path / GOLDEN).is_file()]
        return files[0] if files else None


def _document(url: str) -> dict[str, Any]:
    """The service's OpenAPI document, as BentoML serves it."""
    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=TIME_OUT_S)
    try:
        connection.request("GET", "/docs.json", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(MAX_DOCUMENT)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{url} does not answer: {error}", wanted="a service that runs") from None
    finally:
        connection.close()
    if response.status != 200:
        raise NotFoundError(
            f"GET {url}/docs.json answers {response.status}",
            wanted="the service's OpenAPI document, to make requests up from",
            next_step="give examples of requests and answers: --golden FILE",
        )
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise IntegrityError(f"GET {url}/docs.json gives no JSON object", next_step="give examples: --golden FILE")
    return document
