"""scikit-learn's commonest pipeline, without what scikit-learn does around it."""

from collections.abc import Callable
from typing import Any

import numpy as np

Probabilities = Callable[[np.ndarray], np.ndarray]


def probabilities(pipeline: Any, columns: int) -> Probabilities:
    """`pipeline.predict_proba`, for rows of `columns` finite numbers.

    For one row scikit-learn spends 0.2 ms on looking at the input and 0.01 ms on the arithmetic. For a standard scaler
    and a multinomial logistic regression the arithmetic is done here, provided that it gives the same answers.
    """
    steps = [step for _, step in getattr(pipeline, "steps", ())]
    if len(steps) == 2:
        names = ("mean_", "scale_"), ("coef_", "intercept_")
        parts = [getattr(step, name, None) for step, pair in zip(steps, names, strict=True) for name in pair]
        if all(part is not None for part in parts):
            softmax = _softmax(*parts)
            sample = np.random.default_rng(0).uniform(0, 16, (256, columns))
            if np.array_equal(softmax(sample), pipeline.predict_proba(sample)):
                return softmax
    return pipeline.predict_proba


def _softmax(mean: np.ndarray, scale: np.ndarray, coefficients: np.ndarray, bias: np.ndarray) -> Probabilities:
    weights = coefficients.T

    def softmax(rows: np.ndarray) -> np.ndarray:
        scores = (rows - mean) / scale @ weights + bias
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    return softmax
