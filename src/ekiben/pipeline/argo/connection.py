"""The two ways to Argo: Kubernetes' API, which is always there, and the Argo Server's."""

import os
from collections.abc import Mapping

from ekiben.pipeline.argo.client import Client
from ekiben.pipeline.argo.documents import INSTANCE


def instance(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The labels by which the controller of ARGO_INSTANCEID finds what it is to take up; none where it is not set, as
    for Argo's own command."""
    chosen = given.get("ARGO_INSTANCEID")
    return {INSTANCE: chosen} if chosen else {}


def connect(context: str = "", namespace: str = "") -> Client:
    """By ARGO_SERVER where it is set, as Argo's own command has it; else by the kubeconfig's context ('' for the
    current one). The namespace is ARGO_NAMESPACE or the context's own where none is given."""
    if os.environ.get("ARGO_SERVER"):
        from ekiben.pipeline.argo.server import Server

        return Server.configured(namespace)
    from ekiben.pipeline.argo.cluster import Cluster
    from ekiben.platforms.kubernetes.api import Api
    from ekiben.platforms.kubernetes.kubeconfig import configured

    config = configured(context)
    return Cluster(Api(config), namespace or config.namespace or "default")
