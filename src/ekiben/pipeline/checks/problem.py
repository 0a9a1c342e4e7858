"""A mistake in an Argo document."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """`path` says where, with the names of templates and tasks; `next_step` what to do, where that is known."""

    path: str
    seen: str
    next_step: str = ""
    works: bool = False  # it does something, though hardly what was meant

    def __str__(self) -> str:
        return f"{self.path}: {self.seen}" + (f"\n    next: {self.next_step}" if self.next_step else "")


def one_of(names: object) -> str:
    """The names there are, for a message."""
    found = sorted(map(str, names))  # type: ignore[call-overload]
    return f"one of {', '.join(found)}" if found else "there is none"
