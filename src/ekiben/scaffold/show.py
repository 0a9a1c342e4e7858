"""What `ekiben new` tells a person."""

import os
import shlex

from ekiben.scaffold import requirements
from ekiben.scaffold.plan import Plan


def told(plan: Plan, *, written: bool) -> str:
    """The files, and the commands to go on with, as they are typed in the folder where the command was given."""
    inside = os.path.relpath(plan.root)
    verb = "created" if written else "would create"
    lines = [f"{verb}  {os.path.relpath(plan.root / path)}" for path in plan.files]
    if not written:
        return "\n".join(lines)
    steps = [] if inside == "." else [f"cd {shlex.quote(inside)}"]
    if missing := requirements.missing(plan.framework):
        steps.append(f"python -m pip install {shlex.join(missing)}")
    steps += [f"python -m pytest tests/test_{plan.name}.py", f"ekiben run {plan.name}"]
    lines += ["", "next", *(f"  {step}" for step in steps), ""]
    lines.append(f"Then make it yours: see TODO in bentos/{plan.name}/recipe.py and service/{plan.name}.py.")
    if plan.starts and "pyproject.toml" not in plan.files:
        lines.append(
            f'pyproject.toml stays as it was; to make {plan.name} the default: [tool.ekiben] recipe = "{plan.name}"'
        )
    if plan.starts and ".gitignore" not in plan.files:
        lines.append(".gitignore stays as it was; .ekiben/ holds state and belongs in it")
    return "\n".join(lines)
