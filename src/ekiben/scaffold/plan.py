"""Which files `ekiben new` writes, with their text; nothing is written here.

The model's own files come from templates/. What all models of a project share comes from the folders of Ekiben's own
project, which is one too: the very files, not copies that somebody must keep up to date.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from string import Template

from ekiben.config import ROOT_MARKER, find_root
from ekiben.errors import NotFoundError, UsageError
from ekiben.scaffold import Framework, names, requirements

HELPERS = {
    Framework.SKLEARN: ("__init__", "checks", "draining", "endpoints", "pinned"),
    Framework.TORCH: ("__init__", "batching", "checks", "draining", "endpoints", "network", "pinned"),
}
"""Modules of service/ that the new service needs beside its own."""

FOLDERS = {"workflows": (".py", ".yaml"), "loadtests": (".py", ".toml")}
"""Folders that a project has as a whole, and the files of each."""

_HERE = Path(__file__).parent
_CAPITALISED = re.compile(r"(?<!\$)\b[A-Z]\w*")
_OWN_MODEL = re.compile(r"\bdigits\b")  # the model that is called by its name in Ekiben's own workflows


@dataclass(frozen=True)
class Plan:
    """`files`, path below `root` -> text, are all new; `starts` says that there is no project in `root` yet."""

    root: Path
    name: str
    framework: Framework
    files: Mapping[str, str]
    starts: bool


def plan(where: Path, name: str, framework: Framework, *, here: bool = False) -> Plan:
    """The files of the model `name` for the project that `where` lies in, or else for a new one in `where`.

    The model's own files must not be there; of those that a project shares, the ones that it has stay as they are.
    UsageError says what is in the way. NotFoundError where there is no project, and `where` is not empty, unless with
    `here` the caller means it.
    """
    service = _template(framework, "service.py")
    helpers = {module for modules in HELPERS.values() for module in modules}
    names.check(name, helpers | set(_CAPITALISED.findall(service.template)))
    try:
        root, starts = find_root(where), False
    except NotFoundError:
        root, starts = where, True
        if not here:
            _require_empty(where, name, framework)
    words = _words(root, name, framework)
    own = {
        f"bentos/{name}/__init__.py": "",
        f"bentos/{name}/recipe.py": _template(framework, "recipe.py").substitute(words),
        f"service/{name}.py": service.substitute(words),
        f"tests/test_{name}.py": _template("test.py").substitute(words),
    }
    if not starts:
        use = f"From the project's root: `bentoml build -f bentos/{name}/{ROOT_MARKER} .`"
        own[f"bentos/{name}/{ROOT_MARKER}"] = _template(ROOT_MARKER).substitute(words, use=use)
    _require_free(root, name, own)
    shared = dict(_project(name, words) if starts else ())
    shared |= dict(_shared(root, name, framework))
    files = {**own, **{path: text for path, text in shared.items() if not os.path.lexists(root / path)}}
    return Plan(root, name, framework, dict(sorted(files.items())), starts)


def _project(name: str, words: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The files that make a folder a project; its first model is the one that `bentoml build` builds."""
    use = "What `bentoml build` and `bentoml serve` use in this folder."
    yield ROOT_MARKER, _template(ROOT_MARKER).substitute(words, use=use)
    yield "pyproject.toml", _template("pyproject.toml").substitute(words)
    yield ".gitignore", _template("gitignore").template


def _shared(root: Path, name: str, framework: Framework) -> Iterator[tuple[str, str]]:
    source = _HERE / "project"  # so it is in the wheel; elsewhere the project itself is around this file
    if not source.is_dir():
        source = _HERE.parents[2]
    for module in ("bentos/__init__", *(f"service/{module}" for module in HELPERS[framework])):
        yield f"{module}.py", (source / f"{module}.py").read_text(encoding="utf-8")
    for folder, kinds in FOLDERS.items():
        if (root / folder).exists():
            continue
        for path in sorted((source / folder).iterdir()):
            if path.suffix in kinds:
                text = path.read_text(encoding="utf-8")
                yield f"{folder}/{path.name}", _OWN_MODEL.sub(name, text) if folder == "workflows" else text


def _words(root: Path, name: str, framework: Framework) -> dict[str, str]:
    """What the templates leave open."""
    service = sorted(f"service/{module}.py" for module in (*HELPERS[framework], name))
    packages = requirements.of_bento(framework)
    return {
        "name": name,
        "Name": names.class_name(name),
        "project": re.sub(r"[^a-z0-9]+", "-", root.name.lower()).strip("-") or name,
        "framework": {"sklearn": "scikit-learn"}.get(framework, framework),
        "extras": ",".join(sorted({Framework.SKLEARN, framework})),  # the example's data come with scikit-learn
        "version": metadata.version("ekiben"),
        "include": "\n".join(f'  - "{path}"' for path in service),
        "packages": "\n".join(f'    - "{package}"' for package in packages),
    }


def _template(*path: str) -> Template:
    return Template((_HERE / "templates").joinpath(*path).with_name(f"{path[-1]}.tmpl").read_text(encoding="utf-8"))


def _require_empty(where: Path, name: str, framework: Framework) -> None:
    found = sorted(path.name for path in where.iterdir() if not path.name.startswith("."))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise NotFoundError(
            f"no {ROOT_MARKER} in {where} or above it, and the folder holds {', '.join(found[:3])}{more}",
            wanted="a project, or an empty folder to start one in",
            next_step="change into your project's folder, or into a new one; "
            f"`ekiben new {name} --framework {framework} --here` starts a project beside what is here",
        )


def _require_free(root: Path, name: str, own: Mapping[str, str]) -> None:
    """UsageError if something of that name is there, or a module that the folders would hide."""
    folders = {f"bentos/{name}", f"service/{name}", *(path for path in own if not path.startswith("bentos/"))}
    if found := sorted(path for path in folders if os.path.lexists(root / path)):
        raise UsageError(
            f"{root} has {', '.join(found)} already",
            wanted="a new name: nothing is overwritten",
            next_step=f"choose another name, or remove what is there; `ekiben run {name}` runs an existing recipe",
        )
    for folder in ("bentos", "service", *FOLDERS):
        if (root / f"{folder}.py").exists() and not (root / folder).exists():
            raise UsageError(
                f"{root} has {folder}.py: Python would no longer find it beside a folder {folder}/",
                wanted=f"no module of that name, for {folder}/ is where Ekiben looks",
                next_step=f"move {folder}.py to a name of its own, or start in another folder",
            )
