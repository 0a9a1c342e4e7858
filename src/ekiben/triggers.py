"""Which models in W&B start which workflow: `[tool.ekiben.webhook]` of pyproject.toml, for receiver and poller."""

import string
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from ekiben.environments import Name, Table
from ekiben.environments import Namespace as Label

FIELDS = (
    "entity_name",
    "project_name",
    "artifact_collection_name",
    "alias",
    "event_type",
    "event_author",
    "artifact_version",
    "artifact_digest",
)
"""What parameters can be made of: W&B's own names for what an event says, and the version that the alias is at."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
Part = Annotated[str, StringConstraints(pattern=rf"^{_PART}$")]
PartOrNone = Annotated[str, StringConstraints(pattern=rf"^({_PART})?$")]


def _fillable(text: str) -> str:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}; a brace of its own is written twice") from None
    for _, field, form, conversion in parsed:
        if field is not None and (field not in FIELDS or form or conversion):
            raise ValueError(f"{text!r}: unknown field {field!r}; known: {', '.join(FIELDS)}")
    return text


Text = Annotated[str, AfterValidator(_fillable)]


class Trigger(Table):
    """An alias to look after, and the workflow that is started when another version has it."""

    collections: tuple[Part, ...] = Field(min_length=1, description="Models (W&B's collections) that it is about.")
    alias: Part = Field("production", description="Alias that a version is given to be promoted.")
    events: tuple[str, ...] = Field(
        ("ADD_ARTIFACT_ALIAS", "LINK_ARTIFACT"), min_length=1, description="Types of events that it is about."
    )
    entity: PartOrNone = Field("", description="W&B entity of the collections; empty: the project's own.")
    project: PartOrNone = Field("", description="W&B project of the collections; empty: the project's own.")
    workflow: Name = Field(description="WorkflowTemplate in the cluster that is submitted.")
    parameters: dict[str, Text] = Field(
        default_factory=dict,
        description='Its parameters: text, with fields in braces, such as model = "{artifact_version}".',
    )

    def filled(self, fields: dict[str, str]) -> dict[str, str]:
        """The workflow's parameters. `fields` has a value for each of FIELDS."""
        return {name: text.format_map(fields) for name, text in self.parameters.items()}


class Webhook(Table):
    environment: str = Field("", description="Environment whose cluster runs the workflows; empty: by the kubeconfig.")
    triggers: dict[Label, Trigger] = Field(default_factory=dict, description="By name: what starts what.")

    @property
    def workflows(self) -> list[str]:
        return sorted({each.workflow for each in self.triggers.values()})

    def about(self, event: Mapping[str, str]) -> dict[str, Trigger]:
        """The triggers that an event is about, by name. Rather too many than too few, since what has an alias now is
        looked up in any case: an event that leaves out the alias, as that of a link may, is about every alias."""
        return {
            name: each
            for name, each in self.triggers.items()
            if event["event_type"] in each.events
            and event["artifact_collection_name"] in each.collections
            and event.get("alias", each.alias) == each.alias
        }
