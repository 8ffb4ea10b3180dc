"""Models of keras.applications that tfmot rejects are int8 throughout."""

import numpy as np
import pytest

from tfopt import flatbuffer
from tfopt.checkpoint import reloaded
from tfopt.compat import keras
from tfopt.data import Normalisation, from_arrays
from tfopt.export import Artifact, Int8
from tfopt.rounding import left_float
from tfopt.runner import Runner
from tfopt.stages import Quantize
from tfopt.stages.train import train

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
    places = {f"{name}_dir": tmp_path / name for name in ("log", "checkpoint", "logits")}
    train(stage, made, [], splits, first_epoch=0, trained=True, **places)
    finished = reloaded(stage.finish(made))
    assert left_float(finished) == {}
    content = Int8().convert(finished, examples)
    assert flatbuffer.read(content).with_precision("float") == []
    run = Runner(Artifact(stage="quantize", variant="int8", content=content), threads=1)
    expected = finished(examples, training=False).numpy()
    assert expected.std() > 0
    # Keras doesn't round what TFLite's pools average, which are many in squeeze and excite.
    assert np.abs(run(examples) - expected).mean() < 0.2 * expected.std()
