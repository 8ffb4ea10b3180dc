import json
import subprocess
import sys
import wave

import numpy as np
import PIL.Image
import pytest

from tests.answered import answered
from tests.described import description
from tfopt import export
from tfopt.compat import keras, tf
from tfopt.data import Image, LogMel, Normalisation, Tokens, Waveform
from tfopt.errors import ConfigError, RunError
from tfopt.tflite import metadata
from tfopt.tools.predict import main, predicted

NAMES = ("cat", "dog", "two\nlines")
SHAPES = {
    "image": ((6, 5, 3), Image(peak=1)),
    "sound": ((800,), Waveform(rate=8000)),
    "bands": ((9, 8, 1), LogMel(rate=8000, frame=160, hop=80, mels=8)),
    "text": ((4,), Tokens(vocabulary=("good", "bad"))),
    "features": ((7,), None),
}
NORMALISATION = Normalisation(mean=(0.5,), std=(2.0,))


def made(shape):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="input")
    x = keras.layers.Flatten(name="flatten")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")


def described(content, shape, front_end, names=NAMES):
    return metadata.attached(
        content,
        description(
            shape=shape, class_names=names, normalisation=NORMALISATION, front_end=front_end
        ),
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By what they are asked about: a .tflite, and the model that it was made of."""
    folder, found = tmp_path_factory.mktemp("predict"), {}
    for name, (shape, front_end) in SHAPES.items():
        model, path = made(shape), folder / f"{name}.tflite"
        content = export.Float32().convert(model, np.zeros((1, *shape), np.float32))
        path.write_bytes(described(content, shape, front_end))
        found[name] = path, model
    return found


def probabilities(model, example):
    logits = model(NORMALISATION(np.float32(example)[None]))
    return dict(zip(NAMES, tf.nn.softmax(logits).numpy()[0].tolist(), strict=True))


def check(path, given, expected, capsys):
    assert main([str(path), str(given), "--json", "--top=2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["input"] == str(given)
    best = sorted(expected, key=expected.get)[:0:-1]
    assert [guess["class"] for guess in found["classes"]] == best
    for guess in found["classes"]:
        assert guess["probability"] == pytest.approx(expected[guess["class"]], abs=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "I;16"])
def test_images_of_all_kinds(files, tmp_path, capsys, mode):
    path, model = files["image"]
    grey = np.random.default_rng(0).integers(0, 2, (6, 5), np.uint8) * 255
    image = PIL.Image.fromarray(grey)
    if mode == "I;16":
        image = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode)
    picture = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(picture)
    expected = probabilities(model, np.repeat(grey[..., None] / 255, 3, -1))
    check(path, picture, expected, capsys)


def tone(rate, seconds=0.1):
    return np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate) / 2


def write(path, samples, rate, width=2, channels=1):
    half = 2 ** (8 * width - 1)
    codes = np.round(samples * (half - 1)).astype(np.int64) + (half if width == 1 else 0)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        frames = np.repeat(codes, channels)[:, None] >> 8 * np.arange(width) & 255
        file.writeframes(frames.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(8000, 2, 1), (8000, 1, 1), (8000, 3, 2), (44100, 4, 1)]
)
def test_sounds_of_all_kinds(files, tmp_path, capsys, rate, width, channels):
    path, model = files["sound"]
    write(tmp_path / "a.wav", tone(rate), rate, width, channels)
    expected = probabilities(model, tone(8000))
    assert main([str(path), str(tmp_path / "a.wav"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    for guess in found["classes"]:
        assert guess["probability"] == pytest.approx(expected[guess["class"]], abs=0.01)


def test_a_sound_by_its_bands(files, tmp_path, capsys):
    path, model = files["bands"]
    write(tmp_path / "a.wav", tone(8000), 8000, width=4)
    check(
        path,
        tmp_path / "a.wav",
        probabilities(model, SHAPES["bands"][1](tone(8000), (9, 8, 1))),
        capsys,
    )


def test_texts(files, capsys):
    path, model = files["text"]
    check(path, "Bad, bad thing!", probabilities(model, [3, 3, 1, 0]), capsys)


def test_several_at_once_without_tensorflow(files, tmp_path):
    path, model = files["features"]
    examples = np.random.default_rng(0).normal(size=(3, 7))
    np.save(tmp_path / "one.npy", examples[0])
    np.save(tmp_path / "more.npy", examples[1:])
    inputs = [str(tmp_path / "one.npy"), str(tmp_path / "more.npy")]
    code, out, errors, loaded = answered("predict", str(path), *inputs, "--top=1")
    assert (code, errors, loaded) == (0, "", "LIGHT")
    _, _, *rows = out.splitlines()
    best = [
        max(expected, key=expected.get) for expected in (probabilities(model, x) for x in examples)
    ]
    for row, name in zip(rows, best, strict=True):
        assert (repr(name) if "\n" in name else name) in row
    code = (
        "import sys; from pathlib import Path; from tfopt.tools.predict import predicted; "
        "predicted(Path(sys.argv[1]), sys.argv[2:], 1); print('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(path), *inputs]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False\n"


def test_bad_input_is_one_sentence(files, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros(3))
    np.save(tmp_path / "nan.npy", np.full(7, np.nan))
    write(tmp_path / "a.wav", tone(8000), 8000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:20])
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "text.npy").write_text("text")
    for name, given, said in (
        ("features", "other.npy", r"expected an example of shape \(7,\) or several .* \(3,\)\."),
        (
            "features",
            "a.wav",
            r"expected an .npy file, as this file takes features of",
        ),
        ("features", "nan.npy", "nan.npy: expected finite numbers, received NaN"),
        ("text", "text.npy", r"expected a text, received the name of a file, .*text.npy'; give"),
        ("features", "text.npy", "can't read .*text.npy: it is no .npy file"),
        ("image", "text.png", "can't read .*text.png: it is damaged or of another format"),
        ("image", "none.png", "can't read .*none.png: No such file or directory"),
        ("sound", "text.png", "can't read .*text.png: it is no .wav file of PCM"),
        ("sound", "cut.wav", "can't read .*cut.wav: it is no .wav file of PCM"),
    ):
        with pytest.raises(ConfigError, match=said):
            predicted(files[name][0], [str(tmp_path / given)], 1)
    with pytest.raises(ConfigError, match="--top: expected at least 1, received 0."):
        main(["a.tflite", "a.png", "--top=0"])


def test_bad_files_are_one_sentence(files, tmp_path):
    path = tmp_path / "bad.tflite"
    content = files["features"][0].read_bytes()
    plain = export.Float32().convert(made((7,)), np.zeros((1, 7), np.float32))
    np.save(tmp_path / "x.npy", np.zeros(7))
    for bad, error, said in (
        (b"text, not a model", ConfigError, "it is not a TFLite file"),
        (content[:-9], ConfigError, "its metadata are damaged .*it was cut off"),
        (plain, ConfigError, "it has none of tfopt's metadata.*export it with tfopt"),
        (content.replace(b"TFL3", b"TFL4", 1), ConfigError, "it is of a later schema, TFL4"),
        (described(plain, (8,), None), RunError, r"one input of shape \(8,\).* shapes \[\(7,\)\]"),
        (described(plain, (7,), None, ("a",)), RunError, "expected 1 finite numbers.*, 3 in all"),
    ):
        path.write_bytes(bad)
        with pytest.raises(error, match=f"^[^\n]*{said}[^\n]*$"):
            predicted(path, [str(tmp_path / "x.npy")], 1)


class Custom(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, 7], tf.float32)])
    def call(self, x):
        return tf.math.erfinv(x)


def test_an_operator_that_litert_lacks_is_named(tmp_path):
    module = Custom()
    function = module.call.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.allow_custom_ops = True
    path = tmp_path / "custom.tflite"
    path.write_bytes(described(converter.convert(), (7,), None))
    np.save(tmp_path / "x.npy", np.zeros(7))
    code, out, errors, _ = answered("predict", str(path), str(tmp_path / "x.npy"))
    assert (code, out, errors.count("\n")) == (1, "", 1)
    assert "LiteRT can't allocate its tensors" in errors and "Erfinv" in errors
