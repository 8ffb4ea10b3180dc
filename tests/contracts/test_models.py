"""Every preset through the whole contract: train, prune, quantize, export, save, load."""

import pytest

from tfopt.data import Spec
from tfopt.models import DSCNN, PRESETS
from tfopt.testing import check_model

# The others take one to many minutes each; tests/models/test_blocks.py covers their blocks.
FAST = {"mlp", "small_cnn"}
# The least that has every kind of layer of the convolutional ones, for what walks all models.
MODELS = {**PRESETS, "ds_cnn_shallow": DSCNN(filters=48, depth=1)}
SHAPES = {"resnet50_transfer": (32, 32, 3)}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in PRESETS],
)
def test_preset(name):
    shape = SHAPES.get(name, (8, 8, 1))
    check_model(
        PRESETS[name], spec=Spec(shape=shape, class_names=("a", "b", "c", "d"), train_size=16)
    )
