"""Manifests as YAML that every parser reads alike."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from ekiben.platforms.manifests.names import Manifest

if TYPE_CHECKING:
    Base = yaml.SafeDumper
else:
    Base = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

# Kubernetes' parser takes more for numbers and booleans than PyYAML does: `y`, `1e3`, and so a digest such as 12e456….
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class _Dumper(Base):
    def ignore_aliases(self, data: object) -> bool:
        return True  # an object that stands in two places is written out twice


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """One document for each manifest, keys in the order that they have."""
    return yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, explicit_start=True, allow_unicode=True, width=1_000_000
    )
