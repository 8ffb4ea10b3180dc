import math
import re
import subprocess
import sys

import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.errors import ConfigError
from tfopt.models import DSCNN, MLP, PRESETS, MobileNetV1, MobileNetV2, ResNet, SmallCNN
from tfopt.models.blocks import fitted_strides
from tfopt.spec import check_tree


def spec_of(*shape, classes=10):
    return Spec(shape=shape, class_names=tuple(map(str, range(classes))), train_size=1)


def spec_for(name):
    return spec_of(32, 32, 3) if name == "resnet50_transfer" else spec_of(8, 8, 1)


def body_params(model):
    return model.count_params() - model.get_layer("logits").count_params()


def test_import_does_not_load_tensorflow():
    code = "import sys, tfopt.models; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", PRESETS)
def test_is_flat_named_and_ends_in_logits(name):
    keras.backend.clear_session()
    model = PRESETS[name](spec_for(name))
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.output_shape == (None, 10)
    assert model.layers[-1].name == "logits"
    assert model.layers[-1].activation is keras.activations.linear
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    # Keras makes a name of the class: `conv2d`, then `conv2d_1`.
    automatic = [
        layer.name
        for layer in model.layers
        if re.fullmatch(_snake(type(layer).__name__) + r"(_\d+)?", layer.name)
        and layer.name != "flatten"
    ]
    assert not automatic
    assert not re.fullmatch(r"model(_\d+)?", model.name)


def _snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "resnet50_transfer"])
def test_twice_built_is_the_same(name):
    built = []
    for _ in range(2):  # without clear_session: an automatic name would count up
        keras.utils.set_random_seed(3)
        built.append(PRESETS[name](spec_for(name)))
    first, second = built
    assert first.get_config() == second.get_config()
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_validate(name):
    check_tree(PRESETS[name], "config.model")


# Papers count differently (biases, BatchNormalization's averages), hence the tolerance;
# for MobileNet the numbers are those of keras.applications without top, exactly.
@pytest.mark.parametrize(
    ("model", "shape", "params", "tolerance"),
    [
        (ResNet(depth=8), (32, 32, 3), 78_000, 0.01),
        (ResNet(depth=20), (32, 32, 3), 270_000, 0.02),
        (ResNet(depth=56), (32, 32, 3), 850_000, 0.02),
        (DSCNN(), (49, 10, 1), 22_600, 0.08),
        (MLP(), (28, 28, 1), 266_610, 0),
    ],
)
def test_parameters_are_those_of_the_paper(model, shape, params, tolerance):
    counted = model(spec_of(*shape)).count_params()
    assert counted == pytest.approx(params, rel=tolerance, abs=0)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (MobileNetV1(), 3_228_864),
        (MobileNetV1(width=0.25), 218_544),
        (MobileNetV2(), 2_257_984),
        (MobileNetV2(width=0.35), 410_208),
    ],
)
def test_mobilenet_has_the_parameters_of_keras_applications(model, params):
    assert body_params(model(spec_of(32, 32, 3))) == params


@pytest.mark.parametrize(
    ("model", "at_32"), [(ResNet(), 8), (MobileNetV1(width=0.25), 4), (MobileNetV2(width=0.35), 4)]
)
def test_small_images_keep_a_map_to_pool(model, at_32):
    assert model(spec_of(32, 32, 3)).get_layer("pool").input_shape[1] == at_32
    assert model(spec_of(8, 8, 1)).get_layer("pool").input_shape[1] >= 2


@pytest.mark.parametrize(
    ("side", "kept"), [(224, 5), (96, 5), (64, 4), (32, 3), (28, 3), (8, 1), (4, 0), (1, 0)]
)
def test_fitted_strides_spares_the_earliest(side, kept):
    fitted = fitted_strides([2, 1, 2, 2, 2, 1, 2], (side, side + 5, 1))
    assert math.prod(fitted) == 2**kept
    assert fitted[-1] == (2 if kept else 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ResNet(depth=21), r"config.model.depth: expected 6n \+ 2, such as 20 or 26, received 21"),
        (ResNet(width=0), "config.model.width: expected a number of at least 1"),
        (MobileNetV1(width=0), "config.model.width: expected a number above 0"),
        (MobileNetV2(width=-1), "config.model.width: expected a number above 0"),
        (MLP(units=()), "config.model.units: expected one or more numbers of at least 1"),
        (SmallCNN(filters=(8, 0)), "config.model.filters: expected one or more numbers"),
        (DSCNN(stem_strides=(2, 0)), "config.model.stem_strides: expected two numbers"),
        (
            DSCNN(stem_strides=(2,)),
            "config.model.stem_strides: expected a tuple of 2: a whole number, a whole number",
        ),
    ],
)
def test_impossible_values_are_refused(model, words):
    with pytest.raises(ConfigError, match=words):
        check_tree(model, "config.model")


@pytest.mark.parametrize("model", [ResNet(), MobileNetV1(), MobileNetV2(), DSCNN(), SmallCNN()])
def test_other_than_images_is_refused(model):
    with pytest.raises(ConfigError, match=r"expected data of shape \(height.*received .*\(10,\)"):
        model(spec_of(10))


def test_mlp_takes_any_shape():
    assert MLP(units=(4,))(spec_of(10)).output_shape == (None, 10)
