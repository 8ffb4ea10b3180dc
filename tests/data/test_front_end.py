import re

import numpy as np
import pytest

from tfopt.compat import tf
from tfopt.data import Arrays, Digits, Image, LogMel, Tokens, Waveform
from tfopt.data.decode import _resized
from tfopt.errors import ConfigError
from tfopt.spec import check_tree


@pytest.mark.parametrize("size", [(40, 30), (8, 9), (17, 5)])
def test_pictures_are_resized_as_those_of_a_folder(size):
    raw = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    expected = _resized(raw, (*size, 3)).numpy()
    found = Image()(raw, (*size, 3))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1  # where it is just between two
    assert np.mean(found == expected) > 0.99


def test_pictures_get_the_channels_and_the_peak_of_the_data():
    rgba = np.zeros((2, 2, 4), np.uint8) + np.uint8([255, 0, 0, 9])
    assert Image()(rgba, (2, 2, 3))[0, 0].tolist() == [255, 0, 0]
    assert Image()(rgba, (2, 2, 1))[0, 0].tolist() == [76]
    grey = np.full((2, 2), 51, np.uint8)
    assert Image(peak=1)(grey, (2, 2, 3))[0, 0].tolist() == pytest.approx([0.2] * 3)
    assert Digits().load(64).spec.front_end == Image(peak=16)


def test_sounds_are_cut_off_or_filled_up():
    assert Waveform()(np.ones(3), (5, 1))[:, 0].tolist() == [1, 1, 1, 0, 0]
    assert Waveform()(np.ones(7), (5,)).tolist() == [1] * 5


def test_log_mel_energies_are_those_of_tensorflow():
    raw = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    front_end = LogMel(rate=16000, frame=400, hop=160, mels=24)
    spectrum = tf.abs(tf.signal.stft(raw, 400, 160)) ** 2
    bands = tf.signal.linear_to_mel_weight_matrix(24, 257, 16000, 20.0, 8000.0)
    expected = tf.math.log(spectrum @ bands + 1e-6).numpy()
    np.testing.assert_allclose(front_end(raw, expected.shape), expected, rtol=1e-3, atol=1e-3)


def test_texts_become_places_in_the_vocabulary():
    front_end = Tokens(vocabulary=("it's", "größe", "7"))
    assert front_end("It's  GRÖSSE_größe,7!x", (7,)).tolist() == [2, 1, 3, 4, 1, 0, 0]
    assert front_end("", (2,)).tolist() == [0, 0]
    assert front_end("7 7 7", (2,)).tolist() == [4, 4]


def test_what_can_never_be_is_refused_in_a_config():
    source = Arrays(path="x.npz", front_end=Tokens(vocabulary=("Two words",)))
    with pytest.raises(ConfigError, match=re.escape("config.data.front_end.vocabulary: expected")):
        check_tree(source, "config.data")


def test_arrays_say_what_they_were_made_of(tmp_path):
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 3, 3, 1))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x + 1, y_test=y)
    splits = Arrays(path=str(tmp_path / "a.npz"), front_end=Image(peak=1)).load(4)
    assert splits.spec.front_end == Image(peak=1)
