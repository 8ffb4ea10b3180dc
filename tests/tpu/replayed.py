"""Run the TPU program of each kind of stage on the CPU, and Keras's own step; print both as JSON.

A process of its own, since a process can have only one strategy.
"""

import json

import numpy as np

from tfopt.compat import keras, tf
from tfopt.data import from_arrays
from tfopt.graph import rebuilt
from tfopt.models import SmallCNN
from tfopt.stages import SGD, AtOnce, Prune, Quantize, Stage, Teacher
from tfopt.stages.ready import ready
from tfopt.tpu.pretended import pretended
from tfopt.tpu.step import program, traced

rng = np.random.default_rng(0)
IMAGES, LABELS = (
    rng.normal(size=(8, 16, 16, 3)).astype(np.float32),
    np.arange(8, dtype=np.int32) % 4,
)
PAIR = IMAGES, LABELS
SPLITS = from_arrays(
    train=PAIR, validation=PAIR, test=PAIR, class_names=tuple("abcd"), batch_size=8
)
OPTIONS = {"optimizer": SGD(), "learning_rate": 0.1}
STAGES = {
    "train": Stage(**OPTIONS),
    "distil": Stage(teacher=Teacher(), **OPTIONS),
    "prune": Prune(sparsity=0.5, growth=AtOnce(), **OPTIONS),
    "quantize": Quantize(**OPTIONS),
}


def fitted(stage, plain, teacher):
    """Return what is fitted in `stage`, its rounds of a schedule begun."""
    prepared = stage.prepare(rebuilt(plain), 10, SPLITS.samples)
    for layer in prepared.layers:
        if hasattr(layer, "pruning_step"):
            layer.pruning_step.assign(0)
    return ready(
        stage, prepared, [rebuilt(teacher)] if stage.teachers else [], SPLITS, trained=True
    )


def replayed(model, strategy):
    """Return the variables after one run of the TPU program, from those of `model`."""
    specs = tf.TensorSpec(IMAGES.shape), tf.TensorSpec(LABELS.shape, tf.int32)
    step = traced(model, specs, strategy)
    outside = {inner.name: outer for outer, inner in step.graph.captures}
    values = _by_handle(model)
    variables = []
    for handle in step.resources:
        inner = handle.op.inputs[0] if handle.op.type == "TPUReplicatedInput" else handle
        variables.append(tf.Variable(values[id(outside[inner.name])].read_value()))
    feeds = [_fed(x, outside) for x in step.data]
    program(step, variables)(*feeds)
    return [variable.numpy() for variable in variables]


def _by_handle(model):
    """Return the variables of the first replica by the handles that a graph captures."""
    optimizer = model.optimizer
    rate = [v for v in vars(optimizer).values() if hasattr(v, "values") and hasattr(v, "handle")]
    metrics = [v for metric in model.metrics for v in metric.variables]
    found = {}
    for variable in [*model.variables, *optimizer.variables, *rate, *metrics]:
        first = getattr(variable, "values", (variable,))[0]
        packed = getattr(variable, "_packed_var", None)
        found |= {id(first.handle): first}
        found |= {id(packed.packed_handle): first} if packed is not None else {}
    return found


def _fed(tensor, outside):
    for given in PAIR:
        if tuple(tensor.shape) == given.shape:
            return tf.constant(given)
    source = tensor.op.inputs[0] if tensor.op.inputs else tensor
    if source.op.type == "Const":
        return tf.constant(tf.make_ndarray(source.op.get_attr("value")))
    return outside[source.name]


def nearest(variable, found):
    """Return how far the nearest of the arrays `found` is from `variable`."""
    alike = [x for x in found if x.shape == tuple(variable.shape)]
    return min(float(np.abs(x - variable.numpy()).max()) for x in alike)


keras.utils.set_random_seed(0)
plain, teacher = (SmallCNN(filters=(8, 8, 8))(SPLITS.spec) for _ in range(2))
strategy, results = pretended(1), {}
for name, stage in STAGES.items():
    with strategy.scope():
        found = replayed(fitted(stage, plain, teacher), strategy)
    own = fitted(stage, plain, teacher)
    before = [weight.numpy() for weight in own.trainable_weights]
    tf.function(own.train_step)((tf.constant(IMAGES), tf.constant(LABELS)))
    results[name] = {
        "off": max(nearest(weight, found) for weight in own.trainable_weights),
        "moved": sum(
            not np.array_equal(old, new)
            for old, new in zip(before, own.trainable_weights, strict=True)
        ),
        "weights": len(before),
    }
print("RESULT " + json.dumps(results))
