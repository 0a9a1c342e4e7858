"""Whether servers answer over HTTP: image registries, W&B, Prometheus. None is told more than it must know.

What has a Service's name may answer within the cluster only: then it is asked through the API server.
"""

import re
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from ekiben.doctor.finding import Check, Finding, ok, silent, unknown, warn, wrong
from ekiben.errors import UnavailableError
from ekiben.platforms.kubernetes.api import Api

Inside = tuple[Api, str]
"""The API server, and the namespace that a Service's bare name is in."""
_SERVICE = re.compile(r"([a-z][a-z0-9-]*)(?:\.([a-z0-9-]+)(?:\.svc(?:\.[a-z0-9.-]+)?)?)?")
_STATUS = re.compile(rb'"kind":\s*"Status"')
DOCKER_HUB = "registry-1.docker.io"
_VIEWER = "query Viewer { viewer { id username entity } }"


def registry_of(image: str) -> str:
    """Host and port of the registry that an image or repository is in."""
    first, slash, _ = image.partition("/")
    return first if slash and (re.search(r"[.:]", first) or first == "localhost") else DOCKER_HUB


def registries(images: Sequence[str], insecure: Collection[str] = ()) -> list[Check]:
    """One check for each registry that the images are in; of `insecure` ones nobody expects TLS."""
    hosts = dict.fromkeys(registry_of(image) for image in images if image)

    def check(host: str) -> Check:
        name = f"registry {host}"
        return Check(name, lambda: [registry(name, host, host in insecure)], late="fail")

    if not hosts:
        step = "set image_repository for images, or runtime_image for bundles"
        none = warn("registry", "the environment names neither images nor bundles", "one of both to deploy", step)
        return [Check("registry", lambda: [none])]
    return [check(host) for host in hosts]


def registry(name: str, host: str, plain: bool = False) -> Finding:
    """401 is a registry that wants a login, which pods have and this command has not."""
    import httpx

    step = "correct image_repository, runtime_image or fetch_image in pyproject.toml, or look at the network"
    # Registries on loopback are commonly without TLS; elsewhere the kubelet would refuse that.
    plain = plain or re.fullmatch(r"(localhost|127\.[\d.]+|\[::1\])(:\d+)?", host) is not None
    try:
        answer = httpx.get(f"{'http' if plain else 'https'}://{host}/v2/", timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return silent(name, f"no answer from here: {error or type(error).__name__}", "an answer to GET /v2/", step)
    if answer.status_code in (200, 401, 403):
        login = "" if answer.status_code == 200 else "; it wants a login"
        return ok(name, f"GET /v2/ answers {answer.status_code}{login}")
    return silent(name, f"GET /v2/ answers {answer.status_code}", "200 or 401, as a registry answers", step)


def _asked(url: str, path: str, inside: Inside | None) -> tuple[int, str]:
    """The status, and how it was had. UnavailableError where nobody answers."""
    import httpx

    try:
        return httpx.get(f"{url.rstrip('/')}{path}", timeout=5).status_code, "answers"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        said = f"{url} does not answer: {error or type(error).__name__}"
    address = urlsplit(url)
    match = _SERVICE.fullmatch(address.hostname or "")
    if inside and match:
        api, namespace = inside
        port = address.port or (443 if address.scheme == "https" else 80)
        service = f"{'https:' * (address.scheme == 'https')}{match[1]}:{port}"
        where = f"/api/v1/namespaces/{match[2] or namespace}/services/{service}/proxy"
        status, body = api.proxied(f"{where}{address.path.rstrip('/')}{path}")
        if status == 503:
            raise UnavailableError(f"{url}: the Service has no pod that answers")
        if status and not (status == 404 and _STATUS.search(body)):  # the API server's own: there is no such Service
            return status, "answers within the cluster"
    raise UnavailableError(said)


def wandb_server(name: str, url: str, inside: Inside | None = None) -> Finding:
    """Any answer that is no error of the server or of a proxy before it: not every W&B server has /healthz."""
    step = "check WANDB_BASE_URL (or wandb_base_url in pyproject.toml) and the network"
    try:
        status, how = _asked(url, "/healthz", inside)
    except UnavailableError as error:
        return silent(name, error.seen, "a W&B server", step)
    if status >= 500:
        return silent(name, f"{url} answers {status}", "a W&B server in good health", step)
    return ok(name, f"{url} {how}")


def prometheus(url: str, inside: Inside) -> Finding:
    """Whether it evaluates a query, which is how a release is watched."""
    name, step = "Prometheus", "correct `prometheus` in pyproject.toml; empty: metrics are read from the pods"
    try:
        status, how = _asked(url, "/api/v1/query?query=1", inside)
    except UnavailableError as error:
        return silent(name, error.seen, "Prometheus' API", step)
    if status != 200:
        return silent(name, f"{url} answers a query with {status}", "200, as Prometheus answers", step)
    return ok(name, f"{url} {how}")


def wandb_key(name: str, url: str, key: str) -> Finding:
    """Who the key belongs to. It goes to this server only, in the header in which W&B's own client sends it."""
    import httpx

    wanted, step = "a key that the server knows", f"make a new one ({urlsplit(url).netloc}: settings), export it"
    try:
        answer = httpx.post(f"{url.rstrip('/')}/graphql", json={"query": _VIEWER}, auth=("api", key), timeout=5)
        told = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return unknown(name, f"{url} does not say whether it is valid: {type(error).__name__}", wanted)
    if answer.status_code in (401, 403):
        return wrong(name, f"{url} refuses it ({answer.status_code})", wanted, step)
    if answer.status_code != 200 or not isinstance(told, dict):
        return unknown(name, f"{url} answers {answer.status_code}", wanted)
    viewer = (told.get("data") or {}).get("viewer")
    if not viewer:
        return wrong(name, f"{url} does not know whose it is", wanted, step)
    return ok(name, f"valid; it is {viewer.get('username') or viewer.get('entity') or 'a user'}'s")


def wandb(url: str, key: str, inside: Inside | None = None) -> list[Check]:
    """Whether W&B answers, and whether it knows the key; '' where this machine has none."""
    server, owner = "W&B server", "W&B key"

    def look_at_key() -> list[Finding]:
        if key:
            return [wandb_key(owner, url, key)]
        step = "export WANDB_API_KEY, and WANDB_BASE_URL if it is not W&B's own cloud"
        return [warn(owner, "WANDB_API_KEY is not set here for that server", f"a key for {url}", step)]

    return [Check(server, lambda: [wandb_server(server, url, inside)], late="fail"), Check(owner, look_at_key)]
