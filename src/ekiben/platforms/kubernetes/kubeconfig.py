"""The kubeconfig as kubectl reads it: several files in one, credential plugins, proxies; or the pod's own account.

lightkube reads one file, and of that not all. What it leaves out is kept in `Access.more`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightkube import KubeConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from ekiben.errors import UsageError

Json = dict[str, Any]
_ENTRIES = {"clusters": "cluster", "contexts": "context", "users": "user"}
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Keys whose value is a path, seen from the file that it stands in."""


class Access(SingleConfig):
    """A context. `more`: what the kubeconfig says of its cluster and its user, as it stands there."""

    more: Mapping[str, Any] = {}


def configured(context: str) -> Access:
    """The kubeconfig's context of that name; '' for the current one. In a pod without KUBECONFIG it is the pod's own
    account, whatever contexts are called elsewhere. UsageError if there is none."""
    named = [each for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    try:
        if not named and (own := _own_account()):
            return own
        document = _merged([Path(each).expanduser() for each in named or [DEFAULT_KUBECONFIG]])
        config = KubeConfig.from_dict(document, fname=named[0] if named else DEFAULT_KUBECONFIG)
    except (ConfigError, OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # of a document that is no kubeconfig, Python says what it says
        raise UsageError(
            f"no kubeconfig: {os.pathsep.join(named) or DEFAULT_KUBECONFIG}: {said}",
            wanted="a kubeconfig that names the cluster",
            next_step="set KUBECONFIG, or put it into ~/.kube/config",
        ) from None
    try:
        found = config.get(context or None)
    except ConfigError:
        found = None
    except KeyError as error:
        raise UsageError(
            f"a context of the kubeconfig names {error}, which is not there",
            wanted="its cluster and its user",
            next_step="`kubectl config view` shows what is there",
        ) from None
    if found is None:
        raise UsageError(
            f"the kubeconfig has no context {context!r}" if context else "the kubeconfig has no current context",
            wanted=f"one of {', '.join(sorted(config.contexts))}",
            next_step="correct `context` in the environment's table in pyproject.toml, or KUBECONFIG",
        )
    access = Access(*found._replace(user=found.user or User()))  # as behind `kubectl proxy`
    of = {kind: {each["name"]: each[entry] for each in document[kind]} for kind, entry in _ENTRIES.items()}
    access.more = {**of["clusters"][found.context.cluster], **of["users"].get(found.context.user, {})}
    return access


def _own_account() -> Access | None:
    try:
        found = KubeConfig.from_service_account().get()
    except ConfigError:
        return None
    return Access(*found) if found else None


def _merged(files: Sequence[Path]) -> Json:
    """As kubectl does it: of entries with the same name, and of current contexts, the first one counts. A file that is
    not there is passed over, unless none is."""
    merged: dict[str, dict[str, Any]] = {kind: {} for kind in _ENTRIES}
    current = ""
    if not any(each.is_file() for each in files):
        raise FileNotFoundError("there is no such file")
    for file in files:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for kind, entry in _ENTRIES.items():
            for each in document.get(kind) or ():
                merged[kind].setdefault(
                    each["name"], {"name": each["name"], entry: _absolute(each[entry], file.parent)}
                )
        current = current or document.get("current-context") or ""
    if not merged["contexts"]:
        raise ValueError("it has no contexts")
    return {**{kind: list(entries.values()) for kind, entries in merged.items()}, "current-context": current or None}


def _absolute(entry: Json | None, folder: Path) -> Json:
    made = dict(entry or {})
    made |= {key: str(folder.absolute() / made[key]) for key in _FILES if made.get(key)}
    plugin = made.get("exec") or {}
    if "/" in plugin.get("command", ""):  # else it is looked for in PATH
        made["exec"] = {**plugin, "command": str(folder.absolute() / plugin["command"])}
    return made
