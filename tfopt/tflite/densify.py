"""TFLite's sparse form of a tensor, read.

It stores the values that aren't zero in the order of a traversal, dimension by dimension, the
blocks' own dimensions last. A level of it is dense, or names its places as CSR does (TFLite's
schema, SparsityParameters).
"""

from typing import Any

import numpy as np

_DENSE = 0
# Of values: more of them are damage.
_MOST = 2**28


def densified(sparsity: Any, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return `values`, those that the schema's `sparsity` places, as an array of `shape`.

    Raises ValueError where they don't fit.
    """
    size, order = int(np.prod(shape)), [int(i) for i in sparsity.traversalOrder]
    blocks = [] if sparsity.blockMap is None else [int(i) for i in sparsity.blockMap]
    if size > _MOST or sorted(order) != list(range(len(shape) + len(blocks))):
        raise ValueError(f"a sparse tensor of shape {shape} in the order {order}")
    places = np.zeros((1, 0), np.int64)
    levels = [level for level in sparsity.dimMetadata if level.format != _DENSE]
    # Each place has a value in the end, or a segment on a later level.
    most = max([len(values), *(len(_numbers(level.arraySegments)) for level in levels)])
    for level in sparsity.dimMetadata:
        places = _next(places, level, most)
    if len(places) != len(values) or places.shape[1] != len(order):
        raise ValueError(f"{len(values)} values at {len(places)} places of a sparse tensor")
    by_dimension = places[:, np.argsort(order)]
    at = by_dimension[:, : len(shape)]
    for block, dimension in enumerate(blocks):
        width = int(sparsity.dimMetadata[order.index(len(shape) + block)].denseSize)
        at[:, dimension] = at[:, dimension] * width + by_dimension[:, len(shape) + block]
    found = np.zeros(shape, values.dtype)
    found[tuple(at.T)] = values
    return found


def _next(places: np.ndarray, level: Any, most: int) -> np.ndarray:
    """Return `places` with a column more: each of them at all of its places on `level`."""
    if level.format == _DENSE:
        width = int(level.denseSize)
        if not 0 < width * len(places) <= most:
            raise ValueError(f"a level of {width} in a sparse tensor of {most} values")
        counts, column = np.full(len(places), width), np.tile(np.arange(width), len(places))
    else:
        counts = np.diff(_numbers(level.arraySegments))
        column = _numbers(level.arrayIndices)
    if counts.min(initial=0) < 0 or len(column) != counts.sum():
        raise ValueError(f"{len(column)} places on a level of {counts.sum()} of a sparse tensor")
    return np.column_stack([np.repeat(places, counts, axis=0), column])


def _numbers(vector: Any) -> np.ndarray:
    return np.asarray(vector.values, np.int64)
