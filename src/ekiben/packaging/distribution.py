"""The part of the OCI distribution API that appending to an image needs: manifests, blobs, mounts, and who asks.

No program and no daemon, only HTTP. Credentials are those of Docker's config.json, in the folder DOCKER_CONFIG or
~/.docker; certificates beside the public ones come from SSL_CERT_FILE.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

import httpx

from ekiben.errors import EkibenError, IntegrityError, NotFoundError, UnavailableError, UsageError
from ekiben.packaging import credentials
from ekiben.packaging.credentials import HUB

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER = "application/vnd.docker.distribution.manifest."
_ACCEPTED = ", ".join((INDEX, MANIFEST, f"{_DOCKER}list.v2+json", f"{_DOCKER}v2+json"))
LARGEST_DOCUMENT = 4 * 2**20
"""Bytes of a manifest or a configuration; registries take no larger manifest."""
_REFERENCE = re.compile(
    r"(?P<path>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Reference:
    """A name of an image, as container engines read it."""

    host: str
    path: str
    tag: str = "latest"
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        first, slash, rest = text.partition("/")
        host, name = (first, rest) if slash and re.search(r"[.:]|^localhost$", first) else (HUB, text)
        match = _REFERENCE.fullmatch(name)
        if match is None:
            raise UsageError(f"not an image: {text!r}", wanted="[REGISTRY/]PATH[:TAG][@sha256:DIGEST]")
        path = f"library/{match['path']}" if host == HUB and "/" not in match["path"] else match["path"]
        return cls(host, path, match["tag"] or "latest", match["digest"] or "")

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


class Manifest(NamedTuple):
    document: Mapping[str, Any]
    digest: str


def on_loopback(host: str) -> bool:
    return host.partition(":")[0] in ("localhost", "127.0.0.1")


class Repository:
    """One repository of a registry. Of `insecure` hosts, and of this machine, nobody expects TLS."""

    def __init__(self, reference: Reference, insecure: Collection[str] = ()) -> None:
        self.host, self.path = reference.host, reference.path
        plain = on_loopback(self.host) or self.host in insecure
        address = "registry-1.docker.io" if self.host == HUB else self.host
        self._root = httpx.URL(f"{'http' if plain else 'https'}://{address}/v2/{self.path}/")
        self._client = httpx.Client(timeout=httpx.Timeout(30, read=300), headers={"User-Agent": "ekiben"})
        self._known: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def manifest(self, reference: str) -> Manifest:
        """The manifest of that tag or digest. IntegrityError where its bytes have another digest."""
        answer = self._ask("GET", f"manifests/{reference}", headers={"Accept": _ACCEPTED}, stream=True)
        with contextlib.closing(answer):
            content = _small(answer.iter_bytes())
        wanted = reference if ":" in reference else answer.headers.get("Docker-Content-Digest", "")
        return Manifest(_document(content, f"{self}:{reference}"), checked(content, wanted, f"{self}:{reference}"))

    def document(self, digest: str) -> Mapping[str, Any]:
        """A small JSON blob."""
        content = _small(self.blob(digest))
        checked(content, digest, f"{self}@{digest}")
        return _document(content, f"{self}@{digest}")

    def blob(self, digest: str) -> Iterator[bytes]:
        answer = self._ask("GET", f"blobs/{digest}", stream=True)
        with contextlib.closing(answer):
            yield from answer.iter_bytes(2**20)

    def has(self, digest: str) -> bool:
        return self._ask("HEAD", f"blobs/{digest}", may=(404,)).status_code == 200

    def put(self, digest: str, size: int, chunks: Iterator[bytes]) -> None:
        """Upload a blob of that digest, unless it is there; the registry checks the digest."""
        if not self.has(digest):
            self._upload(self._ask("POST", "blobs/uploads/"), digest, size, chunks)

    def take(self, digest: str, size: int, source: "Repository") -> None:
        """A blob of another repository: by name where the registry is the same and lets it, else by way of here."""
        if (self.host, self.path) == (source.host, source.path) or self.has(digest):
            return
        query = f"?mount={digest}&from={source.path}" if source.host == self.host else ""
        answer = self._ask("POST", f"blobs/uploads/{query}")
        if answer.status_code != 201:
            self._upload(answer, digest, size, source.blob(digest))

    def put_manifest(self, tag: str, content: bytes) -> str:
        """The digest by which the registry now has it."""
        answer = self._ask("PUT", f"manifests/{tag}", content=content, headers={"Content-Type": MANIFEST})
        return checked(content, answer.headers.get("Docker-Content-Digest", ""), f"{self}:{tag}")

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"

    def _upload(self, begun: httpx.Response, digest: str, size: int, chunks: Iterator[bytes]) -> None:
        place = self._root.join(begun.headers["Location"]).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._ask("PUT", place, content=chunks, headers=headers)

    def _ask(
        self,
        method: str,
        where: str | httpx.URL,
        *,
        may: Collection[int] = (),
        stream: bool = False,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        url = where if isinstance(where, httpx.URL) else self._root.join(where)
        try:
            answer = self._send(method, url, content, headers or {}, stream)
            challenge = answer.headers.get("WWW-Authenticate", "")
            # Chunks were sent and are gone; their upload was begun, and so its scope was asked for, before.
            if answer.status_code == 401 and not isinstance(content, Iterator) and self._authorize(challenge):
                answer.close()
                answer = self._send(method, url, content, headers or {}, stream)
            if answer.is_success or answer.status_code in may:
                return answer
            answer.read()
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"the registry {self.host} does not answer: {error or type(error).__name__}",
                next_step="check its name, its certificate (SSL_CERT_FILE) and the network; without TLS it must stand"
                " in insecure_registries of [tool.ekiben]",
            ) from None
        raise self._refused(method, answer)

    def _send(
        self, method: str, url: httpx.URL, content: bytes | Iterator[bytes] | None, headers: Mapping[str, str],
        stream: bool,
    ) -> httpx.Response:  # fmt: skip
        known = self._known if url.host == self._root.host else {}
        request = self._client.build_request(method, url, content=content, headers={**headers, **known})
        return self._client.send(request, stream=stream, follow_redirects=method in ("GET", "HEAD"))

    def _authorize(self, challenge: str) -> bool:
        """Whether there is something new to say to this challenge."""
        kind, _, rest = challenge.partition(" ")
        login = credentials.login(self.host, self.path)
        before = dict(self._known)
        if kind.lower() == "basic" and login:
            self._known = {"Authorization": f"Basic {login}"}
        elif kind.lower() == "bearer":
            asked = dict(_CHALLENGE.findall(rest))
            scopes = [("scope", scope) for scope in asked.get("scope", "").split()]
            given = parse_qsl(httpx.URL(asked.get("realm", "")).query.decode())
            query = httpx.QueryParams([*given, ("service", asked.get("service", "")), *scopes])
            headers = {"Authorization": f"Basic {login}"} if login else {}
            answer = self._client.get(asked.get("realm", ""), params=query, headers=headers)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                told = answer.json() if answer.is_success else {}
                self._known = {"Authorization": f"Bearer {told.get('token') or told['access_token']}"}
        return self._known != before

    def _refused(self, method: str, answer: httpx.Response) -> EkibenError:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            told = "; ".join(str(each.get("message") or each["code"]) for each in answer.json()["errors"])
            return self._error(method, answer.status_code, f": {told}")
        return self._error(method, answer.status_code, "")

    def _error(self, method: str, status: int, told: str) -> EkibenError:
        seen = f"the registry {self.host} answers {status} to {method} for {self.path}{told[:500]}"
        if status in (401, 403):
            return UsageError(
                seen,
                wanted="credentials that may do this, in Docker's config.json",
                next_step=f"`docker login {self.host}`; for workflows the Secret ekiben-registry",
            )
        if status == 404:
            return NotFoundError(seen, next_step="check the image's name and tag")
        return UnavailableError(seen) if status == 429 or status >= 500 else EkibenError(seen)


def checked(content: bytes, digest: str, what: str) -> str:
    """The digest of the content. IntegrityError if another was said."""
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest not in ("", found):
        raise IntegrityError(f"{what} has the digest {found}", wanted=digest)
    return found


def _small(chunks: Iterator[bytes]) -> bytes:
    """What comes, up to a little beyond the largest document: then its digest is another."""
    content = b""
    for chunk in chunks:
        content += chunk
        if len(content) > LARGEST_DOCUMENT:
            break
    return content


def _document(content: bytes, what: str) -> Mapping[str, Any]:
    try:
        if len(content) <= LARGEST_DOCUMENT and isinstance(found := json.loads(content), dict):
            return found
    except ValueError:
        pass
    raise IntegrityError(f"{what} is no JSON document of at most {LARGEST_DOCUMENT} bytes")
