"""ResNet50's weights: from Keras's cache, from a path, and all the ways to have none."""

import urllib.error

import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.errors import ConfigError
from tfopt.models import ResNet50Transfer
from tfopt.spec import check_tree

SPEC = Spec(shape=(32, 32, 3), class_names=("a", "b"), train_size=1)
FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A file of the form of ImageNet's, and the model that wrote it."""
    home = tmp_path_factory.mktemp("home")
    path = home / ".keras" / "models" / FILE
    path.parent.mkdir(parents=True)
    model = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    model.save_weights(path)
    return path, model


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty Keras cache, and a download that fails at once."""
    from tf_keras.src.utils import data_utils

    def refuse(*_):
        raise urllib.error.URLError("no network")

    (tmp_path / ".keras").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(data_utils, "urlretrieve", refuse)


def check_takes_rgb(model, original):
    """The body on RGB computes what the original computes on BGR."""
    body = keras.Model(model.input, model.get_layer("conv5_block3_out").output)
    rgb = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        body(rgb), original(rgb[..., ::-1]), rtol=1e-3, atol=1e-4 * np.max(original(rgb))
    )
    flipped = model.get_layer("conv1_conv").get_weights()[0][:, :, ::-1, :]
    np.testing.assert_array_equal(flipped, original.get_layer("conv1_conv").get_weights()[0])


def test_imagenet_comes_from_the_cache(pretrained, no_network, monkeypatch):
    from tf_keras.src.applications import resnet

    path, original = pretrained
    monkeypatch.setenv("HOME", str(path.parents[2]))
    monkeypatch.setitem(resnet.WEIGHTS_HASHES, "resnet50", (None, None))
    check_takes_rgb(ResNet50Transfer()(SPEC), original)


def test_path(pretrained):
    path, original = pretrained
    model = ResNet50Transfer(weights=str(path))
    check_tree(model, "config.model")
    check_takes_rgb(model(SPEC), original)


def test_none_is_the_published_architecture():
    model = ResNet50Transfer(weights="none")(SPEC)
    tail = sum(model.get_layer(name).count_params() for name in ("dense1", "dense2", "logits"))
    assert model.count_params() - tail == 23_587_712


def test_without_network_it_says_how_to_get_the_file(no_network):
    with pytest.raises(ConfigError) as raised:
        ResNet50Transfer()(SPEC)
    message = str(raised.value)
    assert f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{FILE}" in message
    assert f"~/.keras/models/{FILE}" in message
    assert "no network" in message
    assert "--config.model.weights=PATH" in message


@pytest.mark.parametrize("name", ["missing.h5", "folder.h5", "text.txt"])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "text.txt").write_text("text")
    path = str(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"config.model.weights: expected .* {path!r}"):
        check_tree(ResNet50Transfer(weights=path), "config.model")
    with pytest.raises(ConfigError, match=rf"config.model.weights: expected .* {path!r}"):
        ResNet50Transfer(weights=path)(SPEC)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / "text.h5"
    path.write_text("text")
    with pytest.raises(ConfigError, match=rf"expected an .h5 file .* {str(path)!r}, which can't"):
        ResNet50Transfer(weights=str(path))(SPEC)


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "other.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")]).save_weights(path)
    with pytest.raises(ConfigError, match=rf"expected an .h5 file .* {str(path)!r}, which can't"):
        ResNet50Transfer(weights=str(path))(SPEC)


@pytest.mark.parametrize("shape", [(31, 32, 3), (32, 32, 1), (10,)])
def test_other_shapes_are_refused(shape):
    spec = Spec(shape=shape, class_names=("a", "b"), train_size=1)
    with pytest.raises(ConfigError, match=r"at least \(32, 32, 3\), received .*resize them"):
        ResNet50Transfer(weights="none")(spec)
