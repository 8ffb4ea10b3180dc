import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.errors import ConfigError
from tfopt.models import Saved

DATA = Spec(shape=(8, 8, 1), class_names=("a", "b", "c", "d"), train_size=16)


def nested(end):
    keras.utils.set_random_seed(0)
    body = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Flatten()],
        name="body",
    )
    return keras.Sequential([keras.Input((8, 8, 1)), body, *end])


ENDS = {
    "inside": [keras.layers.Dense(4, activation="softmax", name="top")],
    "layer": [keras.layers.Dense(4, name="top"), keras.layers.Softmax()],
    "activation": [keras.layers.Dense(4, name="top"), keras.layers.Activation("softmax")],
    "none": [keras.layers.Dense(4, name="top")],
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["model.h5", "model.keras", "folder"])
def test_comes_back_flat_and_in_logits_with_its_weights(end, name, tmp_path):
    model = nested(ENDS[end])
    model.save(tmp_path / name)
    loaded = Saved(path=str(tmp_path / name))(DATA)
    assert not any(isinstance(layer, keras.Model) for layer in loaded.layers)
    examples = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    logits, expected = loaded(examples).numpy(), model(examples).numpy()
    if end != "none":
        logits = keras.activations.softmax(loaded(examples)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_used_says_why(tmp_path):
    with pytest.raises(ConfigError, match="a saved Keras model that exists, received 'none.h5'"):
        Saved(path="none.h5")(DATA)
    (tmp_path / "bad.keras").write_text("no model")
    with pytest.raises(ConfigError, match=r"a model that tf_keras can load, received .*bad.keras"):
        Saved(path=str(tmp_path / "bad.keras"))(DATA)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]).save(tmp_path / "other.keras")
    with pytest.raises(ConfigError, match=r"of shape \(8, 8, 1\), received .* takes \(3,\)"):
        Saved(path=str(tmp_path / "other.keras"))(DATA)
