"""All checks of an environment: first the API server; the rest only where it answers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ekiben.doctor import accounts, addresses, argo, cluster, controller, keys, permissions
from ekiben.doctor.finding import Check, Finding, refused, run, unknown
from ekiben.errors import EkibenError
from ekiben.platforms.kubernetes.api import Api
from ekiben.platforms.kubernetes.kubeconfig import configured
from ekiben.platforms.manifests.names import Target


def findings(
    target: Target,
    documents: Mapping[str, Sequence[dict[str, Any]]],
    environ: Mapping[str, str],
    seconds: float,
    insecure: Collection[str] = (),
) -> list[Finding]:
    """`documents` are the project's workflows by their names, `environ` is the process's environment; of `insecure`
    registries nobody expects TLS."""
    settings = target.settings
    images = [settings.image_repository, settings.runtime_image, settings.fetch_image]
    # A key is sent only to the server that it was set for.
    ours = (environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").rstrip("/") == settings.wandb_base_url.rstrip("/")
    key = environ.get("WANDB_API_KEY", "") if ours else ""
    outside = addresses.registries(images, insecure)
    try:
        api = Api(configured(settings.context))
    except EkibenError as error:
        outside += addresses.wandb(settings.wandb_base_url, key)
        return [refused("API server", error, "a kubeconfig that names it"), *run(outside, seconds)]
    within = (api, settings.namespace)
    outside += addresses.wandb(settings.wandb_base_url, key, within)
    if url := settings.prometheus:
        outside.append(Check("Prometheus", lambda: [addresses.prometheus(url, within)], late="fail"))
    inside = [
        *cluster.checks(api, settings),
        *argo.checks(api, settings.pipelines, documents, environ),
        *controller.checks(api, settings.pipelines, documents, environ),
        *accounts.checks(api, target, documents),
        *keys.checks(api, target, documents),
        *permissions.checks(api, target),
    ]
    first, *rest = run([Check("API server", lambda: [cluster.server(api)], late="fail"), *outside], seconds)
    if first.outcome == "fail" and first.exit_code == 4:
        return [first, *(unknown(check.name, "the API server does not answer") for check in inside), *rest]
    return [first, *run(inside, seconds), *rest]
