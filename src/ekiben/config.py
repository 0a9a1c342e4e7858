"""Settings: `[tool.ekiben]` in pyproject.toml, overridden by EKIBEN_* in the environment, overridden by flags."""

import importlib
import sys
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsError,
)
from pydantic_settings import SettingsConfigDict as Config

from ekiben.environments import Environment, EnvironmentTable, known_keys
from ekiben.errors import NotFoundError, UsageError
from ekiben.triggers import Webhook

ROOT_MARKER = "bentofile.yaml"


class Settings(BaseSettings):
    model_config = Config(
        env_prefix="EKIBEN_", pyproject_toml_table_header=("tool", "ekiben"), extra="forbid", env_ignore_empty=True
    )

    project: str = Field("ekiben", description="W&B project that runs and models are logged to.")
    entity: str = Field("", description="W&B entity (team or user); empty: the API key's own default.")
    recipe: str = Field("digits", description="Recipe that commands use when none is named.")
    port: int = Field(3100, ge=0, le=65535, description="Port of the local service, on loopback; 0 takes a free one.")
    base_image: str = Field(
        "", description="What images are made from: has python3 with venv; empty: python:3.x-slim, x as the Bento asks."
    )
    image_registry: str = Field(
        "localhost", description="Where images go, below it by the Bento's name: such as registry.example/team."
    )
    insecure_registries: tuple[str, ...] = Field(
        (), description="Registries (HOST[:PORT]) that are spoken to without TLS, as those of this machine are."
    )
    watch_seconds: float = Field(8.0, gt=0, description="How long a new release is watched before it is kept, in s.")
    environments: dict[str, EnvironmentTable] = Field(
        default_factory=dict, description="Where services run on Kubernetes: see environments.py."
    )
    webhook: Webhook = Field(default_factory=Webhook, description="What aliases in W&B start: see triggers.py.")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        return known_keys(cls, given)

    @field_validator("environments")
    @classmethod
    def _none_is_local(cls, found: dict[str, EnvironmentTable]) -> dict[str, EnvironmentTable]:
        if "local" in found:
            raise ValueError("`--env local` means this machine: give the cluster's environment another name")
        return found

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls, _pyproject())


def _pyproject() -> Path:
    return find_root(Path.cwd()) / "pyproject.toml"


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds bentofile.yaml."""
    for folder in (start, *start.parents):
        if (folder / ROOT_MARKER).is_file():
            return folder
    raise NotFoundError(
        f"no {ROOT_MARKER} in {start} or above it",
        wanted="a project's root: the folder that holds bentofile.yaml, bentos/, service/, workflows/, loadtests/",
        next_step="change into your project's folder, or start one: `ekiben new NAME` in an empty folder",
    )


class Project:
    """A user's project: its root folder, its settings, and the folder `.ekiben/` where all state is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".ekiben"

    @classmethod
    def here(cls) -> "Project":
        return cls(find_root(Path.cwd()))

    @cached_property
    def settings(self) -> Settings:
        try:
            return Settings()
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or '[tool.ekiben]'}: {_said(e['msg'])}" for e in error.errors()
            )
            raise UsageError(
                f"settings: {wrong}", next_step="correct [tool.ekiben] in pyproject.toml or the EKIBEN_* variable"
            ) from None
        except SettingsError as error:
            raise UsageError(f"settings: {error}", wanted="JSON in that EKIBEN_* variable") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"pyproject.toml is not TOML: {error}", next_step="correct it") from None

    def environment(self, name: str, service: str) -> Environment:
        """The environment of that name, as `service` needs it. NotFoundError if there is none."""
        environments = self.settings.environments
        if name == "local":
            raise UsageError(
                "the environment local is this machine, no cluster",
                wanted=f"one of {', '.join(environments)}" if environments else "an environment in pyproject.toml",
                next_step="here `ekiben run` releases; name an environment of a cluster: --env",
            )
        if name not in environments:
            raise NotFoundError(
                f"no environment {name!r}",
                wanted=f"one of {', '.join(environments)}" if environments else "an environment in pyproject.toml",
                next_step=f"add the table [tool.ekiben.environments.{name}] to pyproject.toml, with its namespace",
            )
        return environments[name].of(service)

    def load(self, reference: str) -> Any:
        """The object that `package.module:name` names, imported from the project's root."""
        module, _, name = reference.partition(":")
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise  # the module is there; something that it imports is not
            raise NotFoundError(f"no module {module} in {self.root}", next_step=f"create it with {name}") from None
        except AttributeError:
            raise NotFoundError(f"module {module} has no {name}", next_step=f"define {name} in it") from None

    def names(self, folder: str, inner: str) -> list[str]:
        """What `folder` offers: the x of each `folder/<x>/<inner>` or, with inner '*.py', of each `folder/<x>.py`."""
        pattern = inner if inner.startswith("*") else f"*/{inner}"
        found = sorted((self.root / folder).glob(pattern))
        return [path.stem if inner.startswith("*") else path.parent.name for path in found if path.stem != "__init__"]


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")
