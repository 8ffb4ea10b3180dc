"""Models of keras.applications that tfmot rejects are int8 throughout."""

import numpy as np
import pytest

from tfopt import flatbuffer
from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.export import Artifact, Int8
from tfopt.rounding import left_float
from tfopt.runner import Runner
from tfopt.stages import Quantize
from tfopt.testing import check_stage

SPEC = Spec(shape=(32, 32, 3), class_names=("a", "b", "c", "d"), train_size=16)
APPLICATIONS = {
    "MobileNetV3Small": {"alpha": 0.35},
    "EfficientNetB0": {},
    "DenseNet121": {},
    "ResNet50V2": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_trains_is_int8_throughout_and_agrees_with_its_artifact(name):
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
    examples = np.random.default_rng(0).uniform(0, 255, (32, 32, 32, 3)).astype(np.float32)
    for _ in range(30):  # lets BatchNormalization know its inputs
        model(examples, training=True)
    finished = check_stage(Quantize(learning_rate=1e-5), model, spec=SPEC)
    assert left_float(finished) == {}
    content = Int8().convert(finished, examples)
    graph = flatbuffer.read(content)
    assert graph.with_precision("float") == []
    run = Runner(Artifact(stage="quantize", variant="int8", content=content), threads=1)
    expected = finished(examples, training=False).numpy()
    assert np.abs(run(examples) - expected).mean() < 0.1 * expected.std()
