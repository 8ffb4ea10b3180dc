import numpy as np
import pytest

from tfopt.answers import Answers
from tfopt.comparison import compared
from tfopt.tools.compare import _text

NAMES = ("cat", "dog", "owl")


def logits(named):
    return 10 * np.eye(3)[np.array(named)]


def test_what_is_told_of_two_that_differ():
    labels = np.array([0] * 60 + [1] * 40)
    first, second = labels.copy(), labels.copy()
    first[:3] = 1  # wrong alone
    second[3:15] = 2  # wrong alone
    first[60], second[60] = 0, 2  # wrong both
    found = compared([logits(first), logits(second)], labels, NAMES)
    assert found["only_right"] == [12, 3]
    # Twice the chance of 3 heads or fewer in 15 throws.
    assert found["p_value"] == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    assert [share for share, *_ in found["accuracy"]] == [0.96, 0.87]
    # Wilson's interval, by his formula.
    z, n, p = 1.959964, 100, 0.96
    middle, half = (p + z * z / 2 / n), z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    bounds = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    assert found["accuracy"][0][1:] == pytest.approx(bounds, abs=1e-6)
    assert found["agreement"] == 0.84
    assert found["classes"] == [
        {"name": "cat", "examples": 60, "accuracy": [57 / 60, 48 / 60]},
        {"name": "dog", "examples": 40, "accuracy": [39 / 40, 39 / 40]},
    ]
    assert found["furthest"][0] == {
        "index": 0,
        "label": "cat",
        "named": ["dog", "cat"],
        "distance": pytest.approx(1, abs=1e-3),
    }


def test_probabilities_are_taken_as_they_are():
    sure, unsure = np.array([[0.9, 0.1, 0.0]]), np.array([[0.6, 0.3, 0.1]])
    found = compared([sure, unsure], np.array([0]), NAMES)
    assert found["furthest"][0]["distance"] == pytest.approx(0.3)


def test_numbers_that_are_none_are_wrong_and_come_first():
    broken = np.array([[1.0, 0.0, 0.0], [np.nan, 0.0, 0.0]])
    found = compared([broken, logits([0, 0])], np.array([0, 0]), NAMES)
    assert found["not_finite"] == [1, 0] and found["accuracy"][0][0] == 0.5
    assert found["furthest"][0]["index"] == 1
    assert Answers(broken, np.array([0, 0])).accuracy == 0.5
    assert Answers(broken, np.array([0, 1])).accuracy == 0.5
    text = _text({"files": ["a.tflite", "b.tflite"], "split": "test", **found})
    assert "a: of 1 its numbers aren't finite, which counts as wrong." in text
    assert "b: of" not in text


def test_rounded_probabilities_of_many_classes_are_not_taken_for_logits():
    exact = np.random.default_rng(0).dirichlet(np.full(100, 0.1), 20)
    rounded = np.round(exact * 256) / 256
    found = compared([exact, rounded], exact.argmax(-1), [str(n) for n in range(100)])
    assert 0 < found["furthest"][0]["distance"] < 0.1


def test_one_and_the_same_is_no_better():
    same = logits([0, 1, 2])
    found = compared([same, same], np.array([0, 1, 1]), NAMES)
    assert (found["p_value"], found["agreement"], found["only_right"]) == (1, 1, [0, 0])
