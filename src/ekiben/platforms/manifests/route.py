"""The HTTPRoute (Gateway API) through which requests reach a service: for shares that do not depend on numbers of pods.

Who owns the Gateway applies it, once: an apply sets the weights back, and so ends a canary.
"""

from ekiben.platforms.manifests.names import SERVICE_PORT, Manifest, Target


def http_route(target: Target) -> list[Manifest]:
    """All requests go to the active Service; the preview Service is there for a share. Nothing where the environment
    names no `gateway`: then the route is somebody else's."""
    settings = target.settings
    if not settings.gateway:
        return []
    namespace, _, name = settings.gateway.rpartition("/")
    parent = {"name": name} | ({"namespace": namespace} if namespace else {})
    backends = [_backend(target.name, 100), _backend(target.preview, 0)]
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": target.metadata(settings.http_route),
            "spec": {
                "parentRefs": [parent],
                **({"hostnames": list(settings.hostnames)} if settings.hostnames else {}),
                "rules": [{"backendRefs": backends}],
            },
        }
    ]


def _backend(service: str, weight: int) -> Manifest:
    return {"kind": "Service", "name": service, "port": SERVICE_PORT, "weight": weight}
