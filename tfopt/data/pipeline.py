"""The one way from arrays to the streams that a run trains on and measures with."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.compat import tf
from tfopt.data import quality
from tfopt.data.front_end import FrontEnd
from tfopt.data.normalisation import Normalisation, measured
from tfopt.data.partition import set_apart
from tfopt.data.rows import gatherer
from tfopt.data.splits import Spec, Splits, host_rows
from tfopt.errors import ConfigError

Pair = tuple[np.ndarray, np.ndarray]
_LAST_EPOCH = 2**62


def from_arrays(
    *,
    train: Pair,
    test: Pair,
    class_names: tuple[str, ...],
    batch_size: int,
    validation: Pair | float = 0.1,
    seed: int = 0,
    augment: Callable | None = None,
    normalisation: Normalisation | None = None,
    front_end: FrontEnd | None = None,
) -> Splits:
    """Return the splits of a data set that is given as pairs (examples, labels).

    Examples are (n, ...) whole numbers or float, all alike; an np.memmap stays on disk and is
    read batch by batch. Labels are (n,) or (n, 1) whole numbers that index `class_names`.
    `validation` is a pair of its own or the share of the training data that `seed` sets apart
    for it. `augment(examples, seed)` changes a training batch before it is normalised;
    without a `normalisation`, the training data's own mean and deviation are used.
    `front_end` says what the examples were made of. Raises ConfigError for data that can't be
    trained on.
    """
    given = {"train": train, "test": test}
    if not isinstance(validation, (int, float)):
        given["validation"] = validation
    pairs = {name: quality.checked(name, *pair, class_names) for name, pair in given.items()}
    quality.check_alike({name: rows for name, (rows, _) in pairs.items()})
    quality.warn_of_duplicates(pairs["train"][0], pairs["test"][0])
    chosen = {name: np.arange(len(labels)) for name, (_, labels) in pairs.items()}
    if isinstance(validation, (int, float)):
        pairs["validation"], labels = pairs["train"], pairs["train"][1]
        parts = set_apart(labels, len(class_names), validation, seed)
        chosen["train"], chosen["validation"] = parts
    rows, train_size = pairs["train"][0], len(chosen["train"])
    _check(rows.shape[1:], train_size, len(chosen["validation"]), batch_size, augment)
    normalisation = normalisation or measured(rows, chosen["train"])
    _check_channels(normalisation, rows.shape[-1])
    ready = {
        name: _Examples(*pairs[name], chosen[name], normalisation, batch_size) for name in pairs
    }
    steps = train_size // batch_size
    return Splits(
        train=lambda first_epoch, *rows, host=(0, 1): ready["train"].endless(
            first_epoch, seed, augment, rows, host
        ),
        validation=ready["validation"].finite(),
        test=ready["test"].finite(),
        samples=ready["train"].endless(0, seed, None).take(steps),
        augmented=ready["train"].endless(0, seed, augment).take(steps),
        in_order=None if augment else ready["train"].finite(),
        spec=Spec(
            shape=rows.shape[1:],
            class_names=tuple(class_names),
            train_size=train_size,
            normalisation=normalisation,
            limits=None if normalisation.changes else _limits([rows for rows, _ in pairs.values()]),
            front_end=front_end,
        ),
        batch_size=batch_size,
    )


@dataclass(frozen=True, slots=True)
class _Examples:
    """The chosen examples of one array, as batches of `batch_size`."""

    rows: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    normalise: Normalisation
    batch_size: int

    def endless(
        self,
        first_epoch: int,
        seed: int,
        augment: Callable | None,
        beside: tuple[np.ndarray, ...] = (),
        host: tuple[int, int] = (0, 1),
    ) -> "tf.data.Dataset":
        """Return (examples, labels) of all epochs from `first_epoch` on.

        With arrays `beside`, of one row for each of the chosen examples in their order, it
        is ((examples, *rows), labels). `host` is (index, count): of each batch that host's
        rows. An augmentation sees the whole batch on all hosts, or its draws would depend on
        their number.
        """
        steps, labels = len(self.chosen) // self.batch_size, tf.constant(self.labels)
        chosen, gather = tf.constant(self.chosen), gatherer(self.rows)
        gathers = [gatherer(rows) for rows in beside]

        def epoch(number: "tf.Tensor") -> "tf.data.Dataset":
            places = tf.range(len(self.chosen), dtype=tf.int64)
            # Not index_shuffle: one seed gave 256 different orders in 5,000 epochs (TF 2.21).
            order = tf.random.experimental.stateless_shuffle(places, seed=[seed, number])
            batches = tf.reshape(order[: steps * self.batch_size], [steps, self.batch_size])
            step = number * steps + tf.range(steps, dtype=tf.int64)
            return tf.data.Dataset.from_tensor_slices((step, batches))

        def load(step: "tf.Tensor", places: "tf.Tensor") -> tuple[Any, "tf.Tensor"]:
            own = host_rows(places, *host)
            indices = tf.gather(chosen, own)
            if augment is None:
                examples = gather(indices)
            else:
                whole = gather(tf.gather(chosen, places))
                changed = tf.ensure_shape(augment(whole, tf.stack([seed, step])), whole.shape)
                examples = host_rows(changed, *host)
            examples = self.normalise(examples)
            rows = [gather(own) for gather in gathers]
            return (examples, *rows) if rows else examples, tf.gather(labels, indices)

        epochs = tf.data.Dataset.range(first_epoch, _LAST_EPOCH)
        return _prefetched(epochs.flat_map(epoch), load)

    def finite(self) -> "tf.data.Dataset":
        """Return (examples, labels, weights) of all examples in order, in full batches."""
        labels, chosen = tf.constant(self.labels), tf.constant(self.chosen)
        size, gather = len(self.chosen), gatherer(self.rows)
        batches = -(-size // self.batch_size)
        weight = batches * self.batch_size / size

        def load(batch: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]:
            places = batch * self.batch_size + tf.range(self.batch_size, dtype=tf.int64)
            indices = tf.gather(chosen, tf.minimum(places, size - 1))
            weights = tf.where(places < size, tf.constant(weight, tf.float32), 0.0)
            return self.normalise(gather(indices)), tf.gather(labels, indices), weights

        return _prefetched(tf.data.Dataset.range(batches), load)


def _limits(splits: list[np.ndarray]) -> tuple[int, int] | None:
    if any(rows.dtype.kind == "f" for rows in splits):
        return None
    return min(int(rows.min()) for rows in splits), max(int(rows.max()) for rows in splits)


def _prefetched(batches: "tf.data.Dataset", load: Callable) -> "tf.data.Dataset":
    options = tf.data.Options()
    # The autotuner sleeps up to as long as it has run, and tearing a stream down waits for it:
    # that is up to half of a training run.
    options.autotune.enabled = False
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    loaded = batches.map(load, num_parallel_calls=min(os.cpu_count() or 1, 16))
    return loaded.prefetch(2).with_options(options)


def _check(
    shape: tuple[int, ...], train: int, validation: int, batch_size: int, augment: Any
) -> None:
    if batch_size > train:
        raise ConfigError(
            f"config.batch_size: expected at most the {train} examples of the train split, "
            f"received {batch_size}; make it smaller."
        )
    if not validation:
        raise ConfigError(
            f"config.data.validation: expected a share that gives at least one example, received "
            f"one that gives none of the {train}; make it larger."
        )
    for field, expected in getattr(augment, "rules_for", lambda _: ())(shape):
        received = repr(getattr(augment, field[1:])) if field else type(augment).__name__
        raise ConfigError(f"config.data.augment{field}: expected {expected}, received {received}.")


def _check_channels(normalisation: Normalisation, channels: int) -> None:
    for field in ("mean", "std"):
        received = getattr(normalisation, field)
        if len(received) not in (1, channels):
            raise ConfigError(
                f"config.data.{field}: expected 1 number or one for each of the {channels} "
                f"channels, received {len(received)}."
            )
