"""What a model author writes: one `Recipe` per model, in `bentos/<name>/recipe.py` as `RECIPE`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ekiben.errors import UsageError

Metrics = Mapping[str, float]
Params = Mapping[str, Any]

GOLDEN = "golden.json"
"""Name of the file, saved beside the model's own, that holds requests and the answers this very model gives to them."""


@dataclass(frozen=True)
class Threshold:
    """What a metric must reach before its model may be packaged.

    `at_least` / `at_most` are absolute. `no_worse_than_production_by` is the largest loss, in the metric's own unit,
    against the model that is aliased `production`; it is passed over while there is none.
    `larger_is_better` says which way a loss points.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    no_worse_than_production_by: float | None = None
    larger_is_better: bool = True


@dataclass(frozen=True)
class Example:
    """A request body and the part of the answer that must come back, both as JSON values."""

    request: Any
    response: Any


@dataclass(frozen=True)
class Evaluation:
    """What a model achieved on data it has not seen. Logged to W&B with it: `tables`, name -> (columns, rows), and
    `history`, the metrics of each epoch or other step of the training, the first one first."""

    metrics: Metrics
    tables: Mapping[str, tuple[list[str], list[list[Any]]]] = field(default_factory=dict)
    history: Sequence[Metrics] = ()


@dataclass(frozen=True)
class Recipe:
    """How one model is made, judged and saved.

    `params` holds every parameter with its default; `ekiben run --param key=value` overrides one, parsed to the
    default's type. The callables pass their values on: `data(params)` -> split; `train(split, params)` -> model;
    `evaluate(model, split)` -> Evaluation; `save(model, split, folder)` writes the model's files, no pickle;
    `examples(model, split)` -> the golden answers that smoke and load tests check. `pickles` names the files of the
    model's folder, with /, that may be pickles all the same, each with the reason; none may without.
    """

    name: str
    service: str  # "service.digits:Digits", as bentofile.yaml names it
    route: str  # the endpoint that examples are posted to, such as "/predict"
    params: Params
    thresholds: tuple[Threshold, ...]
    data: Callable[[Params], Any]
    train: Callable[[Any, Params], Any]
    evaluate: Callable[[Any, Any], Evaluation]
    save: Callable[[Any, Any, Path], None]
    examples: Callable[[Any, Any], list[Example]]
    pickles: Mapping[str, str] = field(default_factory=dict)

    def with_params(self, given: Mapping[str, str]) -> dict[str, Any]:
        """All parameters, those in `given` parsed from text to the type of their default."""
        merged = dict(self.params)
        for key, text in given.items():
            if key not in merged:
                raise UsageError(
                    f"recipe {self.name} has no parameter {key!r}",
                    wanted=f"one of {', '.join(sorted(merged))}",
                    next_step=f"see RECIPE.params in bentos/{self.name}/recipe.py",
                )
            merged[key] = _parse(key, text, merged[key])
        return merged


def _parse(key: str, text: str, default: Any) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise UsageError(f"parameter {key}={text!r}", wanted=f"{kind.__name__}, like the default {default!r}") from None
