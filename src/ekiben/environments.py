"""Where a service runs and how: one table `[tool.ekiben.environments.<name>]` of pyproject.toml for each environment.

What one service needs otherwise stands below it, in `[tool.ekiben.environments.<name>.services.<service>]`, with the
same keys: its tables are merged, its values replace those of the environment.
"""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = rf"({_LABEL}(\.{_LABEL})*/)?"
_REPOSITORY = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"


def _matching(pattern: str, longest: int = 253) -> StringConstraints:
    return StringConstraints(pattern=rf"^({pattern})$", max_length=longest)


Name = Annotated[str, _matching(rf"{_LABEL}(\.{_LABEL})*")]
Namespace = Annotated[str, _matching(_LABEL, 63)]
LabelKey = Annotated[str, _matching(_PREFIX + _LABEL_NAME)]
LabelValue = Annotated[str, _matching(rf"({_LABEL_NAME})?", 63)]
Quantity = Annotated[str, _matching(r"[1-9][0-9]{0,14}([kMGT]|[KMGT]i)?")]
Cpu = Annotated[str, _matching(r"[1-9][0-9]{0,8}(m|\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9]")]
Url = Annotated[str, _matching(r"(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[^\s\"{}]*)?)?", 500)]
ResourceName = Annotated[str, _matching(rf"{_LABEL}(\.{_LABEL})*/{_LABEL_NAME}")]
Image = Annotated[
    str, _matching(rf"({_REPOSITORY}(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?)?", 500)
]
Cidr = Annotated[str, AfterValidator(lambda text: str(ipaddress.ip_network(text)))]
EnvName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", 200)]


def known_keys(model: type[BaseModel], given: Any) -> Any:
    """`given` as it is; ValueError that names the keys there are, where it has another."""
    unknown = sorted(given.keys() - model.model_fields.keys()) if isinstance(given, Mapping) else []
    if unknown:
        raise ValueError(f"unknown key {', '.join(map(str, unknown))}; known: {', '.join(model.model_fields)}")
    return given


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        return known_keys(cls, given)


class Replicas(Table):
    min: int = Field(2, ge=1, le=1000, description="Fewest pods of the live colour.")
    max: int = Field(10, ge=1, le=1000, description="Most pods of a colour; without an autoscaler it plays no part.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Resources(Table):
    cpu: Cpu = Field("500m", description="CPU that a pod asks for, in cores or thousandths (m).")
    cpu_limit: Cpu | None = Field(None, description="Most CPU it gets; none: what the node has to spare.")
    memory: Quantity = Field("1Gi", description="Memory that a pod asks for, and its limit, in bytes (Mi, Gi).")
    scratch: Quantity = Field("1Gi", description="Most that it may write below /tmp, in bytes (Mi, Gi).")
    gpu: int = Field(0, ge=0, le=64, description="GPUs of a pod.")
    gpu_resource: ResourceName = Field("nvidia.com/gpu", description="Resource name of the GPUs.")

    @model_validator(mode="after")
    def _limit_not_below(self) -> Self:
        if self.cpu_limit and _cores(self.cpu_limit) < _cores(self.cpu):
            raise ValueError(f"cpu_limit {self.cpu_limit} is below cpu {self.cpu}")
        return self


def _cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


class Autoscaling(Table):
    kind: Literal["none", "cpu", "in-progress", "keda"] = Field(
        "cpu",
        description="What sizes a colour: nothing; an HPA by CPU; an HPA by requests in progress (it needs the metric"
        " bentoml_service_request_in_progress from an adapter); a KEDA ScaledObject by the same from Prometheus.",
    )
    target: int | None = Field(
        None, ge=1, le=10_000,
        description="By CPU: percent of the CPU asked for, default 60; else requests in progress a pod, default 4.",
    )  # fmt: skip

    @property
    def target_or_default(self) -> int:
        return self.target or (60 if self.kind == "cpu" else 4)


class Network(Table):
    policy: bool = Field(True, description="Whether a NetworkPolicy limits who may connect to the pods.")
    from_namespaces: tuple[Namespace, ...] = Field(
        (), description="Namespaces besides its own that may connect: the gateway's, Prometheus'."
    )
    from_addresses: tuple[Cidr, ...] = Field(
        (), description="Address ranges that may connect: the API server's, where the watch reads metrics through it."
    )
    egress: bool = Field(False, description="Whether the pods may connect to anything; else to DNS and to W&B only.")


class Toleration(Table):
    """A taint that pods tolerate, in Kubernetes' own terms. For spot nodes, whatever taint your cloud gives them."""

    key: LabelKey = Field(description="Key of the taint.")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="Whether the value plays a part.")
    value: LabelValue = Field("", description="Value of the taint, with Equal.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="Effect of the taint; empty: every one."
    )

    @model_validator(mode="after")
    def _value_with_equal(self) -> Self:
        if self.value and self.operator == "Exists":
            raise ValueError("a value needs operator Equal")
        return self


class Spot(Table):
    """Nodes that cost less and may be taken away at any time: their labels and taints, which every cloud has its own
    of."""

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="Labels of these nodes.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints of these nodes.")


class Step(Table):
    """What the pod of a workflow's step asks for, and where it runs."""

    cpu: Cpu = Field("2", description="CPU that it asks for, in cores or thousandths (m).")
    memory: Quantity = Field("4Gi", description="Memory that it asks for, and its limit, in bytes (Mi, Gi).")
    gpu: int = Field(0, ge=0, le=64, description="GPUs of the pod.")
    gpu_resource: ResourceName = Field("nvidia.com/gpu", description="Resource name of the GPUs.")
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels of the nodes to run on."
    )
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that the pod tolerates.")
    spot: Spot | None = Field(
        None, description="Where it runs first; after a node was lost, it runs as the keys above say."
    )


class LoadTestStep(Step):
    memory: Quantity = Field("2Gi", description="Memory that it asks for, and its limit, in bytes (Mi, Gi).")


class Watch(Table):
    """How a new colour is watched, and when somebody is alerted later."""

    seconds: int = Field(300, ge=1, le=86_400, description="How long after the switch, in s.")
    min_requests: int = Field(100, ge=1, description="Requests below which nothing can be said.")
    error_percent: float = Field(1.0, gt=0, le=100, description="Most requests that may fail (5xx), in percent.")
    p99_ms: float = Field(500.0, gt=0, le=600_000, description="Most that the 99th percentile may take, in ms.")
    worse_than_before: float = Field(
        2.0, ge=1, le=100,
        description="How many times the old colour's error share, p99 and requests in progress the new one's may be.",
    )  # fmt: skip
    close_enough: float = Field(
        0.2, ge=0, le=1, description="Part of the limits above up to which nothing counts as worse than before."
    )
    inconclusive: Literal["roll-back", "hold"] = Field(
        "roll-back", description="What happens when too little was seen; it is never kept for that."
    )


def _no_key_in_a_manifest(env: dict[str, str]) -> dict[str, str]:
    if "WANDB_API_KEY" in env:
        raise ValueError("WANDB_API_KEY must not stand in a manifest; name its Secret: wandb_secret")
    return env


class Environment(Table):
    """Where and how one service runs."""

    context: str = Field("", description="Context of the kubeconfig; empty: the current one.")
    namespace: Namespace = Field("default", description="Namespace that the services are in.")
    pipeline_namespace: Annotated[str, _matching(f"({_LABEL})?", 63)] = Field(
        "", description="Namespace that the workflows run in; empty: the services' own."
    )
    image_repository: Annotated[str, _matching(f"({_REPOSITORY})?")] = Field(
        "", description="Registry and path that images are in: registry.example/team; the service's name follows."
    )
    runtime_image: Image = Field(
        "",
        description="Image with BentoML and the packages of the service, for Bentos that come as bundles, or that are"
        " appended to it; empty: none for bundles, and to append the one of `ekiben image --runtime`.",
    )
    fetch_image: Image = Field("", description="Image with ekiben that fetches bundles; empty: the runtime image.")
    image_pull_secrets: tuple[Name, ...] = Field((), description="Secrets for the registry.")
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "",
        description="When nodes pull images; empty: Kubernetes' own rule; Never: somebody loads them into the nodes.",
    )
    image_by: Literal["digest", "tag"] = Field(
        "digest",
        description="How pods name a Bento's image: by its digest; or by the tag that `ekiben image` gives it, the"
        " Bento's version: nodes that images were loaded into (kind load, ctr import) know them by nothing else.",
    )
    wandb_secret: Name = Field("wandb", description="Secret that holds the W&B API key under `api-key`, for bundles.")
    wandb_base_url: Url = Field("https://api.wandb.ai", min_length=1, description="W&B server that bundles come from.")
    replicas: Replicas = Field(default_factory=Replicas)
    resources: Resources = Field(default_factory=Resources)
    autoscaling: Autoscaling = Field(default_factory=Autoscaling)
    prometheus: Url = Field("", description="Address of Prometheus' API; empty: metrics are read from the pods.")
    service_monitor: bool = Field(False, description="Whether there are a ServiceMonitor and a PrometheusRule.")
    monitor_labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels by which your Prometheus operator finds them, such as release."
    )
    http_route: Annotated[str, _matching(rf"({_LABEL})?")] = Field(
        "",
        description="HTTPRoute (Gateway API) with the active and the preview Service as backends; gets canary shares.",
    )
    gateway: Annotated[str, _matching(rf"(({_LABEL}/)?{_LABEL})?")] = Field(
        "", description="Gateway ([NAMESPACE/]NAME) of the HTTPRoute that is rendered; empty: the route is another's."
    )
    hostnames: tuple[Name, ...] = Field((), description="Host names of the HTTPRoute that is rendered.")
    canary_percent: int = Field(0, ge=0, le=50, description="Share that goes to the new colour first; 0: no canary.")
    watch: Watch = Field(default_factory=Watch)
    network: Network = Field(default_factory=Network)
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels of the nodes to run on."
    )
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that pods tolerate: those of spot nodes.")
    train: Step = Field(default_factory=Step, description="The pod that trains, in workflows.")
    load_test: LoadTestStep = Field(default_factory=LoadTestStep, description="The pod that load-tests, in workflows.")
    env: Annotated[dict[EnvName, str], AfterValidator(_no_key_in_a_manifest)] = Field(
        default_factory=dict, description="Environment variables of the service; nothing secret."
    )
    start_seconds: int = Field(60, ge=1, le=3600, description="How long a pod may take to become ready, in s.")
    longest_request_seconds: int = Field(30, ge=1, le=3600, description="What a request may take at most, in s.")

    @property
    def pipelines(self) -> str:
        """The namespace that the workflows run in."""
        return self.pipeline_namespace or self.namespace

    @model_validator(mode="after")
    def _gateway_has_a_route(self) -> Self:
        if self.gateway and not self.http_route:
            raise ValueError("a gateway needs the name of the HTTPRoute: http_route")
        return self

    @model_validator(mode="after")
    def _keda_has_a_source(self) -> Self:
        if self.autoscaling.kind == "keda" and not self.prometheus:
            raise ValueError('autoscaling.kind = "keda" needs the address of Prometheus: prometheus')
        return self


class EnvironmentTable(Environment):
    """An environment as pyproject.toml has it: with what single services need otherwise."""

    services: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Per service: the keys above, where it needs other values."
    )

    @model_validator(mode="after")
    def _services_complete(self) -> Self:
        for service in self.services:
            try:
                self.of(service)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, ("services", service, *first["loc"])))
                raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    def of(self, service: str) -> Environment:
        """The environment as this service needs it."""
        own = self.services.get(service)
        if own is None:
            return self
        return Environment.model_validate(_merged(self.model_dump(exclude_unset=True, exclude={"services"}), own))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` has instead, table by table."""
    merged = dict(base)
    for key, value in over.items():
        table = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(merged[key], value) if table else value
    return merged
