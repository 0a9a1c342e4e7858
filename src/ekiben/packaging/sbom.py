"""What an image holds, as CycloneDX JSON. Inside an image's build it prints what is installed, so it needs the standard
library only: python3 sbom.py SITE_PACKAGES NAME VERSION SERIAL
"""

import importlib.metadata
import json
import platform
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]


def main(site_packages: str, name: str, version: str, serial: str) -> None:
    found = [_python(each) for each in importlib.metadata.distributions(path=[site_packages])]
    found += [_interpreter(), *_debian(Path("/var/lib/dpkg/status"))]
    json.dump(_document(name, version, serial, found), sys.stdout, indent=1)


def of_appended(name: str, version: str, serial: str, packages: Mapping[str, str], base: tuple[str, str]) -> str:
    """Of a Bento that was appended to the image `base`, (name, digest), which holds these packages and lists what else
    it holds in its own /sbom.cdx.json."""
    image, digest = base
    below = {"type": "container", "bom-ref": f"{image}@{digest}", "name": image, "version": digest}
    found = [_component(each, packages[each], _pypi(each, packages[each])) for each in packages]
    return json.dumps(_document(name, version, serial, [below, *found]), indent=1)


def _document(name: str, version: str, serial: str, found: Iterable[Component]) -> Component:
    components = {component["bom-ref"]: component for component in found}
    bento = {"type": "application", "bom-ref": f"bento:{name}", "name": name, "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, serial)}",
        "version": 1,
        "metadata": {"component": bento},
        "components": [components[key] for key in sorted(components)],
    }


def _python(distribution: importlib.metadata.Distribution) -> Component:
    name, version = distribution.metadata["Name"], distribution.version
    licences = distribution.metadata.get_all("License-Expression") or []
    component = _component(name, version, _pypi(name, version))
    return {**component, **({"licenses": [{"expression": licences[0]}]} if licences else {})}


def _pypi(name: str, version: str) -> str:
    return f"pkg:pypi/{quote(name.lower().replace('_', '-').replace('.', '-'))}@{quote(version)}"


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
