import random

from tfopt.pareto import front


def test_it_is_what_nothing_else_beats():
    drawn = random.Random(0)
    for _ in range(200):
        points = [(drawn.randint(0, 6), drawn.randint(0, 6)) for _ in range(drawn.randint(0, 12))]
        beaten = [
            any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
            for cost, gain in points
        ]
        assert front(points) == [not each for each in beaten]
