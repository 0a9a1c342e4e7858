"""Who asks a registry: user and password, as Docker's configuration has them."""

import base64
import binascii
import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ekiben.errors import UsageError

HUB = "docker.io"


def login(host: str, path: str) -> str:
    """What Docker's configuration has for the registry: user and password as basic authentication sends them, or ''.
    The entry of the longest path that fits wins, as for a Kubernetes image pull secret."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        entries = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auths") or {}
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / 'config.json'} cannot be read: {error}") from None
    wanted, best, found = f"{host}/{path}/", "", ""
    for name, entry in entries.items():
        key = re.sub(r"/v[12]/?$", "", re.sub(r"^https?://", "", name)).rstrip("/")
        key = HUB if key == "index.docker.io" else key
        if wanted.startswith(f"{key}/") and len(key) >= len(best):
            best, found = key, _basic(entry)
    return found


def _basic(entry: Mapping[str, str]) -> str:
    if entry.get("auth"):
        with contextlib.suppress(binascii.Error):
            base64.b64decode(entry["auth"], validate=True)
            return entry["auth"]
    if entry.get("username"):
        return base64.b64encode(f"{entry['username']}:{entry.get('password', '')}".encode()).decode()
    return ""
