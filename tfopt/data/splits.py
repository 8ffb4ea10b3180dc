"""What every data set gives: its splits as streams, and the spec that models are built from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tfopt.compat import tf
from tfopt.data.front_end import FrontEnd
from tfopt.data.normalisation import Normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a model needs to know of its data.

    `shape` is that of one example without the batch, as the model receives it (float32,
    normalised); labels are integers from 0 to `classes - 1`. `train_size` counts the examples
    that are trained on, without those that went to validation. `limits` are the least and the
    greatest of all values where they are whole numbers that come as they are, such as tokens.
    `front_end` says what an example is made of, None where it is features, made elsewhere.
    """

    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    train_size: int
    normalisation: Normalisation = Normalisation()
    limits: tuple[int, int] | None = None
    front_end: FrontEnd | None = None

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """A loaded data set, batched to static shapes.

    `train(first_epoch)` is an endless stream of (examples, labels): the epochs from
    `first_epoch` on, one after another, each shuffled and augmented by the seed and its own
    number alone, with the incomplete last batch of an epoch dropped. `validation` and `test`
    are finite streams of (examples, labels, weights); the last batch is filled up with
    examples of weight 0, and the others weigh so much that Keras's mean over all rows is the
    exact mean over the real ones. `samples` is one epoch of (examples, labels) of the train
    split, shuffled and not augmented, for measuring; `augmented` is one as training sees it, for
    the statistics of BatchNormalization. Examples are float32, labels int32.

    Of a run on several hosts each has its rows of every batch, see `of_host`: `train` then takes
    `host=(index, count)`.

    `in_order` is finite as `test` is, and gives each training example once, so that something
    can be computed of it that all epochs use: `train(first_epoch, *arrays)` takes arrays of
    one row for each example of `in_order` and gives ((examples, *rows), labels). It is None
    where training examples are augmented, and so never the same twice.
    """

    train: Callable[..., "tf.data.Dataset"]
    validation: "tf.data.Dataset"
    test: "tf.data.Dataset"
    samples: "tf.data.Dataset"
    augmented: "tf.data.Dataset"
    spec: Spec
    batch_size: int
    in_order: "tf.data.Dataset | None" = None

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch."""
        return self.spec.train_size // self.batch_size

    def of_host(self, index: int, count: int) -> "Splits":
        """Return these splits with the rows that host `index` of `count` has of each batch.

        All hosts together have what one alone has, whatever their number: examples are shuffled
        over the whole data set, which files by host could not be.
        """
        if count == 1:
            return self
        return replace(
            self,
            train=partial(self.train, host=(index, count)),
            validation=self.validation.map(partial(_rows, index, count)),
            test=self.test.map(partial(_rows, index, count)),
        )


def _rows(index: int, count: int, *batch: "tf.Tensor") -> tuple["tf.Tensor", ...]:
    return tuple(host_rows(part, index, count) for part in batch)


def host_rows(batch: "tf.Tensor", index: int, count: int) -> "tf.Tensor":
    """Return the rows that host `index` of `count` has of `batch`."""
    shape: Any = batch.shape  # static, as everything in a batch is
    size = shape[0] // count
    return batch[index * size : (index + 1) * size]
