import time

import pytest

from tfopt.compat import tf
from tfopt.stages.waits import Waits


def slow(seconds):
    def load(number):
        time.sleep(seconds)
        return number

    stream = tf.data.Dataset.range(40).map(lambda n: tf.numpy_function(load, [n], tf.int64))
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.prefetch(2).with_options(options)


@pytest.mark.parametrize(("loading", "computing", "waiting"), [(0.06, 0.02, 0.04), (0.02, 0.06, 0)])
def test_only_what_computing_doesnt_cover_is_waited_for(loading, computing, waiting):
    waits, steps = Waits(), 15
    batches = iter(waits.watched(slow(loading)))
    assert int(next(batches)) == 0
    waits.take()
    for number in range(1, steps + 1):
        assert int(next(batches)) == number
        time.sleep(computing)
    least = 0.9 * waiting * steps
    assert least <= waits.take() <= least + 0.75 * loading * steps
    assert waits.take() == 0.0


def test_batches_pass_unchanged():
    stream = tf.data.Dataset.from_tensor_slices(([[1, 2], [3, 4]], [5, 6]))
    stream = stream.map(lambda x, y: ((x, y), y))
    watched = Waits().watched(stream)
    assert watched.element_spec == stream.element_spec
    for (mine, _), (other, _) in zip(watched, stream, strict=True):
        tf.nest.map_structure(tf.debugging.assert_equal, mine, other)
