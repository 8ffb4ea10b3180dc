"""A copy of a model whose variables are laid out over a mesh; loads TensorFlow when imported."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.facts import unwrapped
from tfopt.graph import calls, copied, rebuilt

# Keras's own lists of variables, which are attributes of the layers as well.
_LISTS = {"_self_tracked_trackables", "_trainable_weights", "_non_trainable_weights"}


class Laid:
    """A copy of a functional model on a mesh, and the whole one that it came from.

    `split` says whether any of its variables is in parts.
    """

    def __init__(self, whole: "keras.Model", mesh: Any) -> None:
        # Those of nested models too, which the copy has in one piece with its own.
        layers = list(dict.fromkeys(unwrapped(layer) for layer, _ in calls(whole)))
        layouts, self.split = keras.dtensor.experimental.LayoutMap(mesh=mesh), False
        for layer in layers:
            for path, owner, variable in _variables(layer):
                sides = _sides(owner, layer, variable.shape, mesh.dim_size("model"))
                self.split |= "model" in sides
                key = ".".join((layer.name, *map(str, path)))
                layouts[key] = tf.experimental.dtensor.Layout(sides, mesh)
        with scope(layouts):
            # By its call alone, or `rebuilt` would give it its weights, which are no arrays yet.
            self.model = rebuilt(whole, lambda layer: _called(_bare(layer), mesh))
        for layer in self.model.submodules:
            if isinstance(layer, keras.layers.LayerNormalization):
                layer._fused = False  # as of BatchNormalization, but that its build decides it
        there = [self.model.get_layer(layer.name) for layer in layers]
        self._pairs = [
            pair
            for layer, copy in zip(layers, there, strict=True)
            for pair in zip(layer.weights, copy.weights, strict=True)
        ]
        for variable, spread in self._pairs:
            spread._constraint = variable.constraint
        self.scatter()

    def on_mesh(self, variable: Any) -> Any:
        """Return the variable on the mesh for one of the whole model."""
        return next(spread for whole, spread in self._pairs if whole is variable)

    def scatter(self) -> None:
        """Set the variables on the mesh to those of the whole model."""
        for variable, spread in self._pairs:
            assign(spread, variable.numpy())

    def gather(self) -> None:
        """Set the variables of the whole model to those on the mesh."""
        for variable, spread in self._pairs:
            variable.assign(gathered(spread))


def assign(variable: Any, values: np.ndarray) -> None:
    """Set `variable`, which is on a mesh, to `values`."""
    dtensor = tf.experimental.dtensor
    whole = dtensor.Layout.replicated(variable.layout.mesh, values.ndim)
    copies = dtensor.copy_to_mesh(tf.constant(values), whole)
    variable.assign(dtensor.relayout(copies, variable.layout))


def gathered(variable: Any) -> np.ndarray:
    """Return the whole value of `variable`, which is on a mesh."""
    whole = tf.experimental.dtensor.Layout.replicated(variable.layout.mesh, variable.shape.rank)
    return tf.experimental.dtensor.relayout(variable.read_value(), whole).numpy()


def bytes_per_device(variables: Iterable[Any]) -> int:
    """Return the bytes that a device of the mesh holds of `variables`, the same on each."""
    parts = [tf.experimental.dtensor.unpack(variable.read_value())[0] for variable in variables]
    return sum(part.shape.num_elements() * part.dtype.size for part in parts)


def like(variable: Any) -> Any:
    """Return a new variable of the shape and the layout of `variable`."""
    return tf.experimental.dtensor.DVariable(variable.read_value(), trainable=False)


@contextlib.contextmanager
def scope(layouts: Any) -> Iterator[None]:
    """Lay out what is made within; its random layers draw from generators, as they must."""
    random = keras.backend.experimental
    earlier = random.is_tf_random_generator_enabled()
    random.enable_tf_random_generator()
    try:
        with layouts.scope():
            yield
    finally:
        if not earlier:
            random.disable_tf_random_generator()


def _variables(layer: Any) -> Iterator[tuple[tuple, Any, Any]]:
    """Yield (path, the layer inside that owns it, variable) for each variable of `layer`."""
    found = layer._flatten(predicate=lambda x: isinstance(x, tf.Variable), with_path=True)
    for path, variable in found:
        if not _LISTS & set(path):
            owner = layer
            for name in path[:-1]:
                owner = owner[name] if isinstance(name, int) else getattr(owner, name)
            yield path, owner, variable


def _sides(owner: Any, layer: Any, shape: Any, devices: int) -> list[str]:
    """Return by which side of the mesh each dimension of a variable of `owner` is split.

    `owner` is `layer` or a part of it.
    """
    sides, axis = ["unsharded"] * len(shape), None
    if isinstance(owner, (keras.layers.Dense, keras.layers.Embedding)):
        axis = len(shape) - 1
    elif isinstance(layer, keras.layers.MultiHeadAttention) and len(shape) > 1:
        # (depth, heads, size of a head), but that of the output has the heads first.
        axis = 0 if owner is layer._output_dense else len(shape) - 2
    if axis is not None and shape[axis] % devices == 0:
        sides[axis] = "model"
    return sides


def _bare(layer: Any) -> "keras.layers.Layer":
    """Return an unbuilt copy of `layer` without what a stage has wrapped around it."""
    layer = unwrapped(layer)
    if type(layer) is keras.layers.Embedding:
        return _Embedding.from_config(layer.get_config())
    copy = copied(layer)
    if isinstance(copy, keras.layers.BatchNormalization):
        copy.fused = False  # DTensor has no layouts for the fused kernel
    return copy


def _called(layer: Any, mesh: Any) -> Callable:
    """Return the call of `layer`; convolutions get their channels whole, as they must."""
    if "Conv" not in type(layer).__name__:
        return layer.__call__

    def call(inputs: Any, **options: Any) -> Any:
        return layer(_Rows(mesh)(inputs), **options)

    return call


class _Rows(keras.layers.Layer):
    """The same, laid out with the rows of a batch over the devices and all else whole."""

    def __init__(self, mesh: Any) -> None:
        super().__init__()
        self._mesh = mesh

    def call(self, inputs: Any) -> Any:
        """Return `inputs`."""
        dtensor = tf.experimental.dtensor
        rows = dtensor.Layout.batch_sharded(self._mesh, "batch", rank=inputs.shape.rank)
        return dtensor.relayout(inputs, rows)


class _Embedding(keras.layers.Embedding):
    """An Embedding with a gradient of all rows: DTensor can't update some of a variable's."""

    def call(self, inputs: Any) -> Any:
        """Return the rows of `inputs`."""
        return tf.gather(1.0 * self.embeddings, tf.cast(inputs, tf.int32))
