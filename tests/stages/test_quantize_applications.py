"""Models of keras.applications that tfmot rejects are int8 throughout."""

import numpy as np
import pytest

from tfopt.checkpoint import reloaded
from tfopt.compat import keras
from tfopt.data import Normalisation, from_arrays
from tfopt.debugger import debug
from tfopt.export import Artifact, Int8
from tfopt.rounding import left_float
from tfopt.stages import Quantize
from tfopt.stages.train import Place, train
from tfopt.tflite import flatbuffer

APPLICATIONS = {
    "MobileNetV3Small": {"alpha": 0.35},
    "EfficientNetB0": {},
    "DenseNet121": {},
    "ResNet50V2": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_trains_is_int8_throughout_and_agrees_with_its_artifact(name, tmp_path):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), name="input")
    model = getattr(keras.applications, name)(
        input_tensor=inputs,
        weights=None,
        classes=4,
        classifier_activation=None,
        **APPLICATIONS[name],
    )
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    pair = images, np.arange(32) % 4
    splits = from_arrays(
        train=pair,
        test=pair,
        validation=pair,
        class_names=tuple("abcd"),
        batch_size=16,
        normalisation=Normalisation(mean=(0.0,), std=(1.0,)),  # it is inside of these models
    )
    examples = images.astype(np.float32)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5  # 0.999, as some have it, would know nothing after 30 batches
    for _ in range(30):
        model(examples, training=True)
    stage = Quantize(learning_rate=1e-5)
    made = stage.prepare(model, splits.steps_per_epoch, splits.samples)
    train(stage, made, [], splits, Place(workdir=tmp_path, trained=True))
    finished = reloaded(stage.finish(made))
    assert left_float(finished) == {}
    content = Int8().convert(finished, examples)
    graph = flatbuffer.read(content)
    assert graph.with_precision("float") == []
    # Layer by layer, on the artifact's own inputs. Not by logits: where nothing was learned, the
    # rounding of 8 bits adds up over 50 layers until ResNet50V2's move by 0.4 of their deviation
    # when 3 of an image's 3,072 values change by 1 of 255.
    artifact = Artifact(stage="quantize", variant="int8", content=content)
    own = [noise.own_db for noise in debug(artifact, finished, examples)]  # worst first
    assert len(own) > len(graph.kernels()) / 2
    # But for the logits, whose range cuts off what has added up.
    assert own[1] > 25
