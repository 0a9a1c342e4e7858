"""The shortcut for linear models is taken only where it gives scikit-learn's own answers, bit for bit."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from service.linear import probabilities

IMAGES, DIGITS = load_digits(return_X_y=True)


def linear(**options: object) -> LogisticRegression:
    return LogisticRegression(max_iter=50, tol=1e-2, **options)


TAKEN = [make_pipeline(StandardScaler(), linear(C=0.1)), make_pipeline(StandardScaler(), linear(fit_intercept=False))]
LEFT = [
    make_pipeline(StandardScaler(with_std=False), linear()),  # no scale_
    make_pipeline(MinMaxScaler(), linear()),  # has scale_, but means something else by it
    make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=3)),
    make_pipeline(StandardScaler(), StandardScaler(), linear()),
    make_pipeline(linear()),
    linear(),
    DummyClassifier(strategy="prior"),
]


@pytest.mark.filterwarnings("ignore:lbfgs failed")
@pytest.mark.parametrize("pipeline", TAKEN + LEFT, ids=str)
def test_same_answers_as_scikit_learn(pipeline: Pipeline) -> None:
    pipeline.fit(IMAGES, DIGITS)
    predict = probabilities(pipeline, 64)
    assert (predict != pipeline.predict_proba) == (pipeline in TAKEN)
    for rows in (IMAGES, IMAGES[:1], IMAGES[:7]):
        np.testing.assert_array_equal(predict(rows), pipeline.predict_proba(rows))


@pytest.mark.filterwarnings("ignore:lbfgs failed")
def test_two_classes_are_no_softmax() -> None:
    pipeline = make_pipeline(StandardScaler(), linear()).fit(IMAGES, DIGITS % 2)
    assert probabilities(pipeline, 64) == pipeline.predict_proba
