"""The objects of a service, by who applies them and when. Order is fixed, so that a diff shows what has changed."""

from ekiben.platforms.manifests import access, route, shared, workload
from ekiben.platforms.manifests.names import Delivery, Manifest, Target
from ekiben.types import SLOTS, Release, Slot


def everything(target: Target, delivery: Delivery | None) -> list[Manifest]:
    """All objects of a service; without a delivery all but the Deployments."""
    colours = [manifest for slot in SLOTS for manifest in colour(target, slot, delivery)]
    return [*setup(target), *common(target), *colours]


def setup(target: Target) -> list[Manifest]:
    """ServiceAccounts, the deployer's Role and the route, which the deployer itself can not apply."""
    return [*access.accounts(target), *access.deployer(target), *route.http_route(target)]


def common(target: Target) -> list[Manifest]:
    """What both colours share. The Services are without selector: `shared.first_services` creates them."""
    policy = [shared.network_policy(target)] if target.settings.network.policy else []
    monitoring = shared.monitoring(target) if target.settings.service_monitor else []
    return [*shared.services(target), *policy, *monitoring]


def colour(
    target: Target, slot: Slot, delivery: Delivery | None, release: Release | None = None, floor: int = 0
) -> list[Manifest]:
    """What belongs to one colour; `release` and `floor` as in `workload`."""
    scaler = workload.autoscaler(target, slot, floor)
    deployment = [workload.deployment(target, slot, delivery, release)] if delivery else []
    return [*deployment, *([scaler] if scaler else []), workload.disruption_budget(target, slot)]
