"""Each block on its own: pruned, quantization-aware, and as TFLite in whole numbers only.

The presets' whole contract takes minutes for the deep ones; what they are made of doesn't.
"""

import numpy as np
import pytest

from tfopt.compat import keras, litert, tf, tfmot
from tfopt.data import Spec
from tfopt.export import Int8
from tfopt.models import blocks
from tfopt.stages import Quantize

SPEC = Spec(shape=(6, 6, 4), class_names=("a", "b"), train_size=1)
CASES = {
    "conv": lambda x: blocks.conv(x, 8, "block", activation="relu6"),
    "oblong": lambda x: blocks.conv(x, 8, "block", kernel=(10, 4), strides=(2, 1)),
    "separable": lambda x: blocks.separable(x, 8, "block", stride=2),
    "residual": lambda x: blocks.residual(x, 4, "block"),
    "residual_projected": lambda x: blocks.residual(x, 8, "block", stride=2),
    "inverted": lambda x: blocks.inverted_residual(x, 4, "block", expansion=2),
    "inverted_strided": lambda x: blocks.inverted_residual(x, 8, "block", expansion=2, stride=2),
    "inverted_unexpanded": lambda x: blocks.inverted_residual(x, 8, "block", expansion=1),
    "dense": lambda x: blocks.dense(keras.layers.Flatten(name="flat")(x), 8, "block"),
}


@pytest.fixture(params=CASES)
def model(request):
    inputs = blocks.image_input(SPEC)
    return blocks.classify(inputs, CASES[request.param](inputs), SPEC, request.param)


def test_can_be_pruned(model):
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in model.layers]


def test_quantized_it_is_whole_numbers_only(model):
    stage, examples = Quantize(), np.ones((2, *SPEC.shape), "float32")
    samples = tf.data.Dataset.from_tensors((examples, 0))
    quantized = stage.finish(stage.prepare(model, 0, samples))
    interpreter = litert.Interpreter(model_content=Int8().convert(quantized, examples))
    floats = [t["name"] for t in interpreter.get_tensor_details() if t["dtype"] == np.float32]
    assert not floats
