"""Run inside an image's build: print what is installed as CycloneDX JSON. Standard library only.

python3 sbom.py SITE_PACKAGES NAME VERSION SERIAL
"""

import importlib.metadata
import json
import platform
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]


def main(site_packages: str, name: str, version: str, serial: str) -> None:
    found = [_python(each) for each in importlib.metadata.distributions(path=[site_packages])]
    found += [_interpreter(), *_debian(Path("/var/lib/dpkg/status"))]
    components = {component["bom-ref"]: component for component in found}
    bento = {"type": "application", "bom-ref": f"bento:{name}", "name": name, "version": version}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, serial)}",
        "version": 1,
        "metadata": {"component": bento},
        "components": [components[key] for key in sorted(components)],
    }
    json.dump(document, sys.stdout, indent=1)


def _python(distribution: importlib.metadata.Distribution) -> Component:
    name, version = distribution.metadata["Name"], distribution.version
    normal = name.lower().replace("_", "-").replace(".", "-")
    licences = distribution.metadata.get_all("License-Expression") or []
    component = _component(name, version, f"pkg:pypi/{quote(normal)}@{quote(version)}")
    return {**component, **({"licenses": [{"expression": licences[0]}]} if licences else {})}


def _interpreter() -> Component:
    version = platform.python_version()
    return _component("python", version, f"pkg:generic/python@{version}")


def _debian(status: Path) -> Iterator[Component]:
    """The packages of a Debian base; a base of another kind names its own elsewhere."""
    if not status.is_file():
        return
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
            yield _component(name, version, purl)


def _component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main(*sys.argv[1:])
