"""Credential plugins: the command that a kubeconfig names, which prints a token or a client certificate.

lightkube runs those of two old versions of the protocol only, tells them nothing, and hides what they say to the user.
"""

import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from typing import Any

import httpx2

from ekiben.errors import UsageError

Json = dict[str, Any]
_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


class Plugin(httpx2.Auth):
    """`about` is the kubeconfig's entries of user and cluster. It runs when it is first needed, and again when the
    server no longer accepts what it gave."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._about, self._exec = about, about["exec"]
        self._given: Json | None = None
        self._one_at_a_time = threading.Lock()

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        given = self._credentials()
        request.headers.update(_header(given))
        answer = yield request
        if answer.status_code == 401:  # before anything was done
            request.headers.update(_header(self._credentials(instead_of=given)))
            yield request

    def certify(self, context: ssl.SSLContext) -> None:
        """Has the connection use the plugin's certificate, where it gives one."""
        given = self._credentials()
        if not given.get("clientCertificateData"):
            return
        with tempfile.NamedTemporaryFile("w") as pair:  # 0600, and gone once it is read
            pair.write(f"{given['clientCertificateData']}\n{given.get('clientKeyData', '')}\n")
            pair.flush()
            context.load_cert_chain(pair.name)

    def _credentials(self, instead_of: Json | None = None) -> Json:
        with self._one_at_a_time:
            if self._given is None or self._given is instead_of:
                self._given = self._run()
            return self._given

    def _run(self) -> Json:
        plugin, version = self._exec, self._exec.get("apiVersion", "")
        command = [plugin["command"], *(plugin.get("args") or ())]
        if version not in _VERSIONS:
            raise UsageError(
                f"the credential plugin {command[0]} speaks {version or 'no version'}",
                wanted=f"one of {', '.join(_VERSIONS)}",
                next_step="update the plugin, and have it write the kubeconfig anew",
            )
        interactive = plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
        told: Json = {"interactive": interactive}
        if plugin.get("provideClusterInfo"):
            keys = ("server", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name", "proxy-url")
            told["cluster"] = {key: self._about[key] for key in keys if key in self._about}
        info = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": told})
        own = {each["name"]: each["value"] for each in plugin.get("env") or ()}
        try:
            # What it says on stderr is for the user: "open this page to log in".
            run = subprocess.run(
                command,
                env={**os.environ, **own, "KUBERNETES_EXEC_INFO": info},
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=True,
            )
            given: Json = json.loads(run.stdout)["status"]
        except FileNotFoundError:
            hint = " ".join(str(plugin.get("installHint", "")).split())
            raise _none(f"there is no credential plugin {command[0]}", hint or "install it") from None
        except subprocess.CalledProcessError as error:
            raise _none(f"the credential plugin {command[0]} ended with {error.returncode}", "log in again") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _none(f"the credential plugin {command[0]} printed no credentials: {error}", "log in again") from None
        if not (given.get("token") or given.get("clientCertificateData")):
            raise _none(f"the credential plugin {command[0]} printed no credentials", "log in again")
        return given


def _header(given: Json) -> dict[str, str]:
    return {"Authorization": f"Bearer {given['token']}"} if given.get("token") else {}


def _none(seen: str, next_step: str) -> UsageError:
    return UsageError(f"no credentials: {seen}", wanted="a user of the cluster", next_step=next_step)
