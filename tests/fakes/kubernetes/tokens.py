"""Tokens that ServiceAccounts ask for (TokenRequest): good until they expire, or the account is deleted."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.access import User, service_account
from tests.fakes.kubernetes.clock import EPOCH, Clock
from tests.fakes.kubernetes.statuses import bad_request, cause, invalid
from tests.fakes.kubernetes.store import Store

if TYPE_CHECKING:
    from tests.fakes.kubernetes.writes import Writer

Json = dict[str, Any]
LEAST_SECONDS = 600


class Issued:
    def __init__(self) -> None:
        self._accounts: dict[str, tuple[Json, float]] = {}  # by token: the account's metadata, and when it expires

    def issue(self, account: Json, asked: Json, writer: "Writer", clock: Clock) -> Json:
        """The TokenRequest with its status. Raises 400 and 422."""
        if asked.get("kind", "TokenRequest") != "TokenRequest":
            raise bad_request(f'no kind "{asked["kind"]}" is registered for version "{asked.get("apiVersion", "")}"')
        lasts = (asked.get("spec") or {}).get("expirationSeconds", 3600)
        if lasts < LEAST_SECONDS:
            why = f"Invalid value: {lasts}: may not specify a duration less than 10 minutes"
            raise invalid(
                "authentication.k8s.io", "TokenRequest", "", [cause("Invalid", "spec.expirationSeconds", why)]
            )
        token, expires = f"token-{writer.uid()}", clock.seconds + lasts
        self._accounts[token] = (account["metadata"], expires)
        status = {"token": token, "expirationTimestamp": _stamp(expires)}
        return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", **asked, "status": status}

    def user(self, token: str, store: Store, clock: Clock) -> User | None:
        """Whose token it is, if it is good."""
        at, expires = self._accounts.get(token, ({}, 0.0))
        if clock.seconds >= expires:
            return None
        account = store.get(("", "serviceaccounts"), at["namespace"], at["name"])
        if account is None or account["metadata"]["uid"] != at["uid"]:
            return None
        return service_account(at["namespace"], at["name"])


def _stamp(seconds: float) -> str:
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
