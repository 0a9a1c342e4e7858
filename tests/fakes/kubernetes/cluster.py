"""The API server as an object: `Cluster.request` answers what the real one answers over HTTP.

Controllers work only while time passes: `Cluster.advance`. For sockets, httpx2 and kubeconfigs see http.py.
"""

import json
import random
import time as wall
from collections.abc import Iterable
from typing import Any

from tests.fakes.kubernetes import access, patches, proxying, selectors
from tests.fakes.kubernetes.access import ADMIN, User
from tests.fakes.kubernetes.clock import Clock
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.faults import Answer, Call, ConnectionLost, Fault
from tests.fakes.kubernetes.managers import Manager
from tests.fakes.kubernetes.reads import Reads, dropped, gone
from tests.fakes.kubernetes.resources import BUILT_IN, CUSTOM, REVIEWS, Resource
from tests.fakes.kubernetes.routing import Router
from tests.fakes.kubernetes.statuses import ApiFailure, forbidden
from tests.fakes.kubernetes.store import Store
from tests.fakes.kubernetes.tokens import Issued
from tests.fakes.kubernetes.verbs import Verbs
from tests.fakes.kubernetes.writes import Writer

Json = dict[str, Any]


class Cluster:
    """`custom` names the installed custom resources (see resources.CUSTOM). Without `tokens` everybody is an
    administrator; with them a request needs one of theirs, and RBAC is enforced. So it is for whoever brings a token
    that was `issued` to a ServiceAccount."""

    def __init__(self, custom: Iterable[str] = (), seed: int = 0) -> None:
        self.clock, self.store = Clock(), Store()
        self.writer = Writer(self.store, self.clock, random.Random(seed))
        self.served = [*BUILT_IN, *(CUSTOM[name] for name in custom)]
        self.tokens: dict[str, User] = {}
        self.issued = Issued()
        self.faults: list[Fault] = []
        self.log: list[Call] = []
        self.driven = False  # whether real time drives the clock; else waiting for a watch's next event does
        self.router, self.reads = Router(self.served), Reads(self)
        self.verbs = Verbs(self, self.reads)
        self.controllers = Controllers(self)
        self.kubelet = self.controllers.kubelet
        for name in ("default", "kube-system"):
            self._namespace(name)

    # What a test does with it

    def advance(self, seconds: float) -> None:
        """Lets virtual time pass; the controllers work through it, event by event."""
        with self.store.changed:
            self.controllers.advance(seconds)

    def fail(self, match: str, **effect: Any) -> Fault:
        """Adds a Fault; see there."""
        self.faults.append(Fault(match, **effect))
        return self.faults[-1]

    def resource(self, plural: str) -> Resource:
        return next(each for each in self.served if each.plural == plural)

    def get(self, plural: str, name: str, namespace: str = "default") -> Json:
        """A copy of an object, past log, faults and access. Raises ApiFailure (404)."""
        resource = self.resource(plural)
        found = self.writer.must(resource, namespace if resource.namespaced else "", name)
        copy: Json = patches.copied(found)
        return copy

    def objects(self, plural: str, namespace: str | None = "default", labels: str = "") -> list[Json]:
        """Copies of objects, past log, faults and access."""
        resource = self.resource(plural)
        match = selectors.label_selector(labels)
        found = self.store.ordered(resource.key, namespace if resource.namespaced else None)
        return [patches.copied(each) for each in found if match(each)]

    def create(self, thing: Json, namespace: str = "default") -> Json:
        """Puts an object there as an administrator would, past log and faults. Raises ApiFailure."""
        resource = next(e for e in self.served if (e.api_version, e.kind) == (thing["apiVersion"], thing["kind"]))
        with self.store.changed:
            return self.verbs.create(
                resource, thing, namespace, Manager("setup", "Update", resource.api_version), ADMIN
            )

    def counts(self) -> dict[str, int]:
        """How many requests of each "verb resource" were made."""
        made: dict[str, int] = {}
        for call in self.log:
            made[f"{call.verb} {call.resource}"] = made.get(f"{call.verb} {call.resource}", 0) + 1
        return made

    # Requests

    def request(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> Answer:
        """Answers one request; `body` is JSON as an object, or text or bytes. The answer's body is not to be changed.
        Raises ConnectionLost where a fault says so."""
        params = dict(params or {})
        lower = {key.lower(): value for key, value in (headers or {}).items()}
        call = Call(method, path, params, at=self.clock.seconds)
        resource, rest = self.router.route(call)
        self.log.append(call)
        met = [fault for fault in self.faults if fault.meets(call)]
        for fault in met:
            if fault.delay:
                self._pause(fault.delay)
            if fault.status:
                answer = fault.answer()
                call.status = answer.status
                return answer
            if fault.reset:
                raise ConnectionLost(committed=False)
        answer = self._answered(call, resource, rest, lower, body)
        call.status = answer.status
        for fault in met:
            if fault.lost:
                call.status = 0
                raise ConnectionLost(committed=True)
            if fault.drop_after is not None and call.verb == "watch":
                answer.body = dropped(answer.body, fault.drop_after)
            if fault.gone and call.verb == "watch":
                answer.body = iter([gone(params.get("resourceVersion", "0"), self.store.version)])
        return answer

    def _pause(self, seconds: float) -> None:
        if self.driven:
            wall.sleep(seconds)
        else:
            self.advance(seconds)

    def _answered(self, call: Call, resource: Resource | None, rest: str, headers: Json, body: Any) -> Answer:
        warnings: list[str] = []
        try:
            user = self._user(headers)
            call.user = user.name
            if resource is None:
                return self.router.document(call.path)
            if resource.plural not in REVIEWS:
                self.authorise(user, call, resource)
            if call.resource.endswith("/proxy"):
                return proxying.proxied(self, call, rest, headers, body)
            if call.verb == "watch":
                return Answer(200, self.reads.watch(resource, call), {"Content-Type": "application/json"})
            with self.store.changed:
                answer = self.verbs.serve(resource, call, headers, body, user, warnings)
        except ApiFailure as failure:
            answer = Answer(failure.code, failure.body())
            if failure.details and "retryAfterSeconds" in failure.details:
                answer.headers["Retry-After"] = str(failure.details["retryAfterSeconds"])
        if warnings:
            answer.headers["Warning"] = ", ".join(f"299 - {json.dumps(each)}" for each in warnings)
        return answer

    def _user(self, headers: Json) -> User:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if user := self.tokens.get(token) or self.issued.user(token, self.store, self.clock):
            return user
        if self.tokens:
            raise ApiFailure(401, "Unauthorized", "Unauthorized")
        return ADMIN

    def authorise(self, user: User, call: Call, resource: Resource) -> None:
        """Raises 403; an apply of what is not there needs `create` besides `patch`."""
        if access.allowed(self.store, user, call, resource.group):
            return
        where = f'in the namespace "{call.namespace}"' if call.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {call.verb} resource "{call.resource}" in API group "{resource.group}" {where}'
        )
        raise forbidden(resource.group, resource.plural, call.name, why)

    def _namespace(self, name: str) -> None:
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, "")

    def add_service_account(self, namespace: str) -> None:
        self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, namespace)
