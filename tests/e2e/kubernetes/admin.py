"""The cluster as its administrator sees it: bare requests, so that nothing here rests on what is tested."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import SingleConfig

from ekiben.platforms.kubernetes import kubeconfig as access

Json = dict[str, Any]
_PLURALS = {"NetworkPolicy": "networkpolicies"}
_CORE = "/api/v1"


class Refused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def configured(kubeconfig: str, context: str = "") -> SingleConfig:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", kubeconfig)
        return access.configured(context)


class Admin:
    """Requests of one user; `namespace` is where names without one are."""

    def __init__(self, config: SingleConfig, namespace: str) -> None:
        self.config, self.namespace = config, namespace
        self.client = Client(config, ConnectionParams(httpx2.Timeout(20)))

    def request(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **params: str
    ) -> Any:
        """The answer's JSON. Raises Refused. What an overloaded server did not take is sent again."""
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(8):
            answer = self.client.request(
                method, path, params=params, content=data, headers={"Content-Type": content} if data else None
            )
            if answer.status_code != 429:
                break
            time.sleep(0.5 * 2**attempt)
        if not answer.is_success:
            raise Refused(answer.status_code, answer.text)
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.text

    def path(self, api_version: str, plural: str, name: str = "") -> str:
        root = _CORE if api_version == "v1" else f"/apis/{api_version}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def path_of(self, thing: Json, named: bool = True) -> str:
        plural = _PLURALS.get(thing["kind"], f"{thing['kind'].lower()}s")
        return self.path(thing["apiVersion"], plural, thing["metadata"]["name"] if named else "")

    def get(self, plural: str, name: str, api_version: str = "v1") -> Json:
        found: Json = self.request("GET", self.path(api_version, plural, name))
        return found

    def items(self, plural: str, labels: str = "", api_version: str = "v1") -> list[Json]:
        params = {"labelSelector": labels} if labels else {}
        found: list[Json] = self.request("GET", self.path(api_version, plural), **params)["items"]
        return found

    def create(self, thing: Json) -> Json:
        """As `kubectl create` does."""
        made: Json = self.request(
            "POST", self.path_of(thing, named=False), thing, fieldManager="kubectl-create", fieldValidation="Strict"
        )
        return made

    def apply(self, thing: Json, manager: str = "kubectl") -> Json:
        """As `kubectl apply --server-side` does: what somebody else says otherwise of a field is a conflict."""
        made: Json = self.request(
            "PATCH", self.path_of(thing), thing, "application/apply-patch+yaml",
            fieldManager=manager, fieldValidation="Strict",
        )  # fmt: skip
        return made

    def merge(self, path: str, change: Json) -> None:
        self.request("PATCH", path, change, "application/merge-patch+json")

    def delete(self, plural: str, name: str, api_version: str = "v1") -> None:
        self.request("DELETE", self.path(api_version, plural, name))

    def token(self, account: str) -> str:
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 12 * 3600},
        }
        path = f"{self.path('v1', 'serviceaccounts', account)}/token"
        token: str = self.request("POST", path, asked)["status"]["token"]
        return token


def until(what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `condition` returns once it is true; an assertion that it becomes so in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return found
