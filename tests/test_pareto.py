import random

from tfopt.pareto import best, front


def test_it_is_what_nothing_else_beats():
    drawn = random.Random(0)
    for _ in range(200):
        points = [(drawn.randint(0, 6), drawn.randint(0, 6)) for _ in range(drawn.randint(0, 12))]
        beaten = [
            any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
            for cost, gain in points
        ]
        assert front(points) == [not each for each in beaten]


def test_costs_within_the_noise_are_equal():
    assert front([(1.0, 2), (1.04, 3)], noise=0.05) == [False, True]
    assert front([(1.0, 2), (1.06, 3)], noise=0.05) == [True, True]
    assert front([(1.0, 2), (1.04, 2), (1.06, 2)], noise=0.05) == [True, True, False]
    # What is beaten beats nobody: 1.00 is clearly faster than what is left.
    assert front([(1.0, 1), (1.04, 2), (1.08, 3)], noise=0.05) == [True, False, True]


def test_the_best_is_the_smallest_of_the_most_accurate():
    figures = [(0.98, 100), (0.975, 30), (0.8, 10), (float("nan"), 1)]
    rows = [{"accuracy": a, "gzip_bytes": size, "bytes": size} for a, size in figures]
    assert best(rows) is rows[1]
    assert best([]) is None
