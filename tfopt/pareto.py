"""The Pareto front: what nothing else beats in both of two figures."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each (cost, gain) whether none costs no more, gains no less, and is another.

    Of equal points all are on the front.
    """
    best: dict[int, bool] = {}
    highest, cost_of_it = float("-inf"), float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, gain = points[index]
        best[index] = gain > highest or (gain, cost) == (highest, cost_of_it)
        if gain > highest:
            highest, cost_of_it = gain, cost
    return [best[index] for index in range(len(points))]
