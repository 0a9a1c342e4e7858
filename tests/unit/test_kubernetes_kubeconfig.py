"""Kubeconfigs as people have them: several files, credential plugins, proxies, other names in certificates."""

import functools
import http.server
import json
import os
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ekiben.errors import UnavailableError, UsageError
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.kubeconfig import configured

Json = dict[str, Any]
VERSION = "/version"


class Server:
    """Answers every request well, and keeps what came; without the right token with 401 where one is set."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.peers: list[Any] = []
        self.token = ""
        self.url = ""


@contextmanager
def answering(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    seen = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {key.lower(): ", ".join(self.headers.get_all(key, [])) for key in self.headers}
            seen.requests.append((self.path, headers))
            seen.peers.append(self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None)
            good = not seen.token or headers.get("authorization") == f"Bearer {seen.token}"
            body = json.dumps({"major": "1"} if good else {"kind": "Status", "code": 401, "message": "Unauthorized"})
            self.send_response(200 if good else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    seen.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()


def kubeconfig(path: Path, cluster: Json, user: Json | None = None, name: str = "one", current: bool = True) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"of-{name}"}}],
        **({"current-context": name} if current else {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def named(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, files)))


def plugin(folder: Path, status: Json, **more: Any) -> Json:
    """A credential plugin that prints this, and writes down how it was called, a line each time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(status))
    script = folder / "get-token"
    script.write_text(
        f'#!/bin/sh\necho "$KUBERNETES_EXEC_INFO $MORE $1" >> {folder}/calls\n'
        f'printf \'{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": \'\n'
        f"cat {folder}/status.json\nprintf '}}'\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    made = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    return {"exec": {**made, **more}}


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    key, made = folder / f"{name}.key", folder / f"{name}.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
    names = ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(made)]
    subprocess.run([*new, *names], check=True, capture_output=True)
    return key, made


def test_of_several_files_the_first_that_says_something_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kubectl's rules: entries by name, the first current context; a file that is not there is passed over; paths are
    seen from the file that they stand in."""
    _, authority = certificate(tmp_path / "deep", "api.internal")
    first = kubeconfig(tmp_path / "a", {"server": "http://first:1"}, {"token": "t1"}, current=False)
    other = {"server": "https://second:2", "certificate-authority": authority.name}
    second = kubeconfig(tmp_path / "deep" / "b", other, {"tokenFile": "token"}, "two")
    again = kubeconfig(tmp_path / "c", {"server": "http://third:3"})
    named(monkeypatch, tmp_path / "none", first, second, again)
    assert (configured("").cluster.server, configured("").namespace) == ("https://second:2", "of-two")
    assert configured("").cluster.certificate_auth == str(authority)
    user = configured("").user
    assert user and user.token_file == str(tmp_path / "deep" / "token")
    assert configured("one").cluster.server == "http://first:1"
    with pytest.raises(UsageError, match="no context 'three'") as raised:
        configured("three")
    assert "one of one, two" in str(raised.value.wanted)


def test_where_none_of_them_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, tmp_path / "none", tmp_path / "nor-this")
    with pytest.raises(UsageError, match=r"no kubeconfig: .*none.*nor-this: there is no such file"):
        configured("")


def test_a_context_without_a_user_needs_none_but_the_one_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering() as server:
        file = kubeconfig(tmp_path / "config", {"server": server.url})
        document = yaml.safe_load(file.read_text())
        named(monkeypatch, file)
        del document["contexts"][0]["context"]["user"], document["users"]
        file.write_text(yaml.safe_dump(document))
        assert Api(configured("")).get(VERSION) == {"major": "1"}
        document["contexts"][0]["context"]["user"] = "nobody"
        file.write_text(yaml.safe_dump(document))
        with pytest.raises(UsageError, match="names 'nobody', which is not there"):
            configured("")


def test_a_plugin_is_told_what_is_asked_of_it_and_asked_again_when_its_token_has_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering() as server:
        server.token = "first"
        env = [{"name": "MORE", "value": "more"}]
        user = plugin(tmp_path / "bin", {"token": "first"}, args=["--login"], env=env, provideClusterInfo=True)
        named(monkeypatch, kubeconfig(tmp_path / "config", {"server": server.url}, user))
        api = Api(configured(""))
        assert api.get(VERSION) == {"major": "1"}
        assert api.get(VERSION) == {"major": "1"}
        (call,) = (tmp_path / "bin" / "calls").read_text().splitlines()
        told, more, login = call.rsplit(" ", 2)
        assert (more, login) == ("more", "--login")
        assert json.loads(told) == {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "spec": {"interactive": False, "cluster": {"server": server.url}},
        }
        server.token = "second"
        (tmp_path / "bin" / "status.json").write_text('{"token": "second"}')
        assert api.get(VERSION) == {"major": "1"}
        assert len((tmp_path / "bin" / "calls").read_text().splitlines()) == 2


def test_a_plugin_beside_its_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as server:
        server.token = "t"
        user = plugin(tmp_path / "bin", {"token": "t"})
        user["exec"]["command"] = "bin/get-token"
        named(monkeypatch, kubeconfig(tmp_path / "config", {"server": server.url}, user))
        assert Api(configured("")).get(VERSION) == {"major": "1"}


@pytest.mark.parametrize(
    ("change", "status", "said", "next_step"),
    [
        ({"command": "no-such-plugin", "installHint": "get it from\nthe shop"}, {}, "there is no credential plugin",
         "get it from the shop"),
        ({"command": "false"}, {}, "ended with 1", "log in again"),
        ({"command": "true"}, {}, "printed no credentials", "log in again"),
        ({}, {"expirationTimestamp": "2026-01-01T00:00:00Z"}, "printed no credentials", "log in again"),
        ({"apiVersion": "client.authentication.k8s.io/v9"}, {}, "speaks client.authentication.k8s.io/v9", "update"),
    ],
)  # fmt: skip
def test_a_plugin_that_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Json, status: Json, said: str, next_step: str
) -> None:
    user = plugin(tmp_path / "bin", status, **change)
    named(monkeypatch, kubeconfig(tmp_path / "config", {"server": "http://127.0.0.1:1"}, user))
    with pytest.raises(UsageError, match=said) as raised:
        Api(configured("")).get(VERSION)
    assert next_step in str(raised.value.next_step)


def test_certificates_a_plugins_own_and_a_server_of_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tls-server-name`: what the server's certificate is made out to, where that is not its address."""
    server_key, authority = certificate(tmp_path, "api.internal")
    client_key, client = certificate(tmp_path, "anna")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, server_key)
    context.load_verify_locations(client)
    context.verify_mode = ssl.CERT_REQUIRED
    status = {"clientCertificateData": client.read_text(), "clientKeyData": client_key.read_text()}
    with answering(context) as server:
        cluster = {"server": server.url, "certificate-authority": authority.name, "tls-server-name": "api.internal"}
        named(monkeypatch, kubeconfig(tmp_path / "config", cluster, plugin(tmp_path / "bin", status)))
        assert Api(configured("")).get(VERSION) == {"major": "1"}
        assert dict(each[0] for each in server.peers[0]["subject"]) == {"commonName": "anna"}
        assert "authorization" not in server.requests[0][1]


def test_an_authority_without_key_identifiers_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters on EKS have such; from 3.13 on, Python's own default refuses them."""
    (tmp_path / "openssl.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")  # none of the default extensions
    new = ["openssl", "req", "-config", str(tmp_path / "openssl.cnf"), "-x509", "-newkey", "rsa:2048", "-nodes"]
    bare = ["-addext", "subjectKeyIdentifier=none", "-addext", "authorityKeyIdentifier=none"]
    ca, ca_key, made, key = (tmp_path / name for name in ("ca.pem", "ca.key", "made.pem", "made.key"))
    run = functools.partial(subprocess.run, check=True, capture_output=True)
    root = ["-addext", "basicConstraints=critical,CA:TRUE"]
    run([*new, *bare, *root, "-subj", "/CN=kubernetes", "-keyout", str(ca_key), "-out", str(ca)])
    leaf = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    signed = [*new, *bare, *leaf, "-subj", "/CN=kube-apiserver", "-CA", str(ca), "-CAkey", str(ca_key)]
    run([*signed, "-keyout", str(key), "-out", str(made)])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    default = ssl.create_default_context

    def strict(*args: Any, **more: Any) -> ssl.SSLContext:
        made = default(*args, **more)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", strict)
    with answering(context) as server:
        named(monkeypatch, kubeconfig(tmp_path / "c", {"server": server.url, "certificate-authority": str(ca)}))
        assert Api(configured("")).get(VERSION) == {"major": "1"}
        other = certificate(tmp_path, "other")[1]
        named(monkeypatch, kubeconfig(tmp_path / "c", {"server": server.url, "certificate-authority": str(other)}))
        with pytest.raises(UnavailableError, match="no TLS"):
            Api(configured("")).get(VERSION)


def test_through_a_proxy_and_in_somebodys_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as proxy:
        user = {"token": "t", "as": "ci", "as-groups": ["deployers", "readers"]}
        cluster = {"server": "http://api.invalid:6443", "proxy-url": proxy.url}
        named(monkeypatch, kubeconfig(tmp_path / "config", cluster, user))
        assert Api(configured("")).get(VERSION) == {"major": "1"}
        path, headers = proxy.requests[0]
        assert path == "http://api.invalid:6443/version"
        assert (headers["impersonate-user"], headers["impersonate-group"]) == ("ci", "deployers, readers")


def test_a_proxy_that_cannot_be_used_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, kubeconfig(tmp_path / "c", {"server": "http://x:1", "proxy-url": "ftp://127.0.0.1:1"}))
    with pytest.raises(UsageError, match=r"context cannot be used: .*proxy"):
        Api(configured(""))
