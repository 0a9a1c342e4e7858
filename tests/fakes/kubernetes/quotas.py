"""The ResourceQuota controller: a quota says what is used of it, and admission heeds none that does not say so yet."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes.admission import usage
from tests.fakes.kubernetes.schema import canonical_quantity

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

Json = dict[str, Any]


class Quotas:
    def __init__(self, controllers: "Controllers") -> None:
        self.cluster, self.store = controllers.cluster, controllers.store
        self.resource, self.pods = self.cluster.resource("resourcequotas"), self.cluster.resource("pods")

    def reconcile(self) -> None:
        for quota in self.store.every(self.resource.key):
            hard = quota["spec"].get("hard", {})
            taken = [
                usage(pod)
                for pod in self.store.ordered(self.pods.key, quota["metadata"]["namespace"])
                if pod["status"]["phase"] != "Failed"
            ]
            used = {key: canonical_quantity(sum((t.get(key, Decimal(0)) for t in taken), Decimal(0))) for key in hard}
            status = {"hard": hard, "used": used}
            if quota.get("status") != status:
                self.store.put(self.resource, {**quota, "status": status})
