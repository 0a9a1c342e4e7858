"""Registries on loopback: the reference implementation, as the distribution packages it, open or with a lock."""

import base64
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

import pytest

from ekiben.packaging.distribution import INDEX, MANIFEST, Reference, Repository
from ekiben.processes import free_port

USER, PASSWORD = "ada", "cabbage"
HASHED = "ada:$2b$05$abcdefghijklmnopqrstuuU0zrqElzNyBeySBfqFOYNjSxbTPmnUq\n"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
LOGIN = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Json = dict[str, Any]


def installed() -> str | None:
    return shutil.which("docker-registry") or shutil.which("registry")


@contextmanager
def registry(folder: Path, lock: str = "") -> Iterator[str]:
    """HOST:PORT of one; `lock` is how one proves to be USER: "basic" or "token"."""
    program, port = installed(), free_port()
    if program is None:
        pytest.skip("not installed: docker-registry (apt-get install docker-registry)")
    folder.mkdir(parents=True, exist_ok=True)
    config: Json = {
        "version": 0.1,
        "http": {"addr": f"127.0.0.1:{port}"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
    }
    with ExitStack() as held:
        if lock == "basic":
            (folder / "users").write_text(HASHED)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "users")}}
        elif lock == "token":
            config["auth"] = {"token": held.enter_context(_tokens(folder))}
        (folder / "config.yml").write_text(json.dumps(config))
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{port}/v2/")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def docker_config(folder: Path, host: str, password: str = PASSWORD) -> Path:
    """A folder for DOCKER_CONFIG that knows the registry."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
    (folder / "config.json").write_text(json.dumps({"auths": {host: entry}}))
    return folder


def push_base(host: str, path: str = "team/runtime", kind: str = MANIFEST, architectures: tuple[str, ...] = ()) -> str:
    """A base image, pushed by hand: one compressed layer; for several architectures behind an index."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("opt"))
    oci = kind == MANIFEST
    with Repository(reference := Reference.parse(f"{host}/{path}:1")) as there:
        for architecture in architectures or (HERE,):
            config = json.dumps(
                {
                    "architecture": architecture, "os": "linux",
                    "config": {"Env": ["PATH=/opt/venv/bin:/bin", "HOME=/root"], "Labels": {"base": "yes"}},
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'1' * 64}"]},
                }
            ).encode()  # fmt: skip
            kinds = ("oci.image.config.v1+json", "oci.image.layer.v1.tar+gzip") if oci else (
                "docker.container.image.v1+json", "docker.image.rootfs.diff.tar.gzip")  # fmt: skip
            parts = []
            for content, name in zip((config, layer.getvalue()), kinds, strict=True):
                digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
                there.put(digest, len(content), iter([content]))
                parts.append({"mediaType": f"application/vnd.{name}", "digest": digest, "size": len(content)})
            manifest = {"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}
            _push(there, f"1-{architecture}" if architectures else "1", manifest)
        if architectures:
            entries = [
                {"mediaType": kind, "size": 1, "digest": there.manifest(f"1-{each}").digest,
                 "platform": {"os": "linux", "architecture": each}}
                for each in architectures
            ]  # fmt: skip
            _push(there, "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    return str(reference)


def _push(there: Repository, tag: str, manifest: Json) -> None:
    content, headers = json.dumps(manifest).encode(), {"Content-Type": manifest["mediaType"]}
    there._ask("PUT", f"manifests/{tag}", content=content, headers=headers)


@contextmanager
def _tokens(folder: Path) -> Iterator[Json]:
    """A server of tokens, and what a registry must know to believe them. Each token lives for what was asked, no more:
    who may pull has no right to push by the same token."""
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    der = "".join(cert.read_text().splitlines()[1:-1])

    def signed(access: list[Json]) -> str:
        now = int(time.time())
        claims = {"iss": "test", "aud": "test", "sub": USER, "nbf": now - 10, "exp": now + 300, "access": access}
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        text = ".".join(_url(json.dumps(part).encode()) for part in (head, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(key)]
        return f"{text}.{_url(subprocess.run(sign, input=text.encode(), check=True, capture_output=True).stdout)}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == f"Basic {LOGIN}"
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            access = [dict(zip(("type", "name", "actions"), scope.split(":"), strict=True)) for scope in scopes]
            body = json.dumps({"token": signed([{**a, "actions": a["actions"].split(",")} for a in access])}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        realm = f"http://127.0.0.1:{server.server_port}/token"
        yield {"realm": realm, "service": "test", "issuer": "test", "rootcertbundle": str(cert)}
    finally:
        server.shutdown()
        server.server_close()


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _wait(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url)
            return
        except HTTPError:
            return  # it answers, and wants to know who asks
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.1)
