import gzip
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from tfopt import export
from tfopt.compat import keras, litert, tflite_schema
from tfopt.data import Image, LogMel, Normalisation, Tokens, Waveform
from tfopt.export.converter import converted, converter
from tfopt.tflite import attachment, flatbuffer, metadata

DIGITS = metadata.Description(
    config="digits",
    config_hash="0123456789ab",
    stage="quantize",
    variant="int8",
    accuracy=352 / 359,
    examples=359,
    shape=(8, 8, 1),
    class_names=tuple("0123456789"),
    normalisation=Normalisation(mean=(4.8,), std=(6.0,)),
    front_end=Image(peak=16),
)
OTHERS = {
    "colour": {
        "shape": (32, 32, 3),
        "normalisation": Normalisation(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)),
        "front_end": Image(),
    },
    "sound": {"shape": (16000,), "front_end": Waveform(rate=8000)},
    "bands": {"shape": (98, 40, 1), "front_end": LogMel(hop=160)},
    "text": {"shape": (20,), "front_end": Tokens(vocabulary=("it's", "größe"))},
    "no words": {"shape": (20,), "front_end": Tokens(vocabulary=())},
    "features": {"shape": (20,), "front_end": None},
    "odd names": {"class_names": ("a\nb", "", "  ", "c\u2028d", "ü\0")},
    "one name": {"class_names": ("",)},
}


def small():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="input")
    x = keras.layers.Conv2D(5, 3, name="conv")(inputs)
    outputs = keras.layers.Dense(10, name="logits")(keras.layers.Flatten(name="flat")(x))
    return keras.Model(inputs, outputs, name="net")


@pytest.fixture(scope="module")
def content():
    examples = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    return export.Int8().convert(small(), examples)


@pytest.fixture(scope="module")
def described(content):
    return metadata.attached(content, DIGITS)


def answers(content, dtype=np.int8, batch=1):
    interpreter = litert.Interpreter(model_content=content)
    runner = interpreter.get_signature_runner("serving_default")
    (details,) = runner.get_input_details().values()
    rng = np.random.default_rng(1)
    values = rng.integers(-128, 128, (batch, *details["shape"][1:])).astype(dtype)
    return runner(examples=values)["logits"]


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
def test_all_of_it_comes_back(content, fields):
    description = replace(DIGITS, **fields)
    assert metadata.read(metadata.attached(content, description)) == description


@pytest.mark.parametrize("batch", [1, 3])
def test_the_model_is_the_same_as_before(content, described, batch):
    assert np.array_equal(answers(content, batch=batch), answers(described, batch=batch))
    assert flatbuffer.read(described).kernels() == flatbuffer.read(content).kernels()


def stored(content):
    """Where in the file each buffer that isn't empty begins, and what it holds."""
    model = tflite_schema.Model.GetRootAs(content)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    data = [buffer.DataAsNumpy() for buffer in buffers if buffer.DataLength()]
    whole = np.frombuffer(content, np.uint8)
    return [(each.ctypes.data - whole.ctypes.data, each.tobytes()) for each in data]


def test_weights_stay_aligned_as_they_were(content, described):
    before, (*after, metadata) = stored(content), stored(described)
    assert [data for _, data in before] == [data for _, data in after]
    assert {(new - old) % 16 for (old, _), (new, _) in zip(before, after, strict=True)} == {0}
    assert metadata[0] % 16 == 0


def test_it_takes_little_space(content, described):
    # The examples of the report are of 10 classes, and an int8 file may have 10 KB.
    assert len(gzip.compress(described)) - len(gzip.compress(content)) < 800


def test_another_description_takes_the_place_of_the_first(content, described):
    again = metadata.attached(described, replace(DIGITS, stage="prune", accuracy=0.5))
    assert metadata.read(again).stage == "prune"
    assert metadata.standard(again)["description"] == "prune int8, accuracy 50.00% of 359 examples"
    assert b"quantize" not in again and b"98.05%" not in again
    assert np.array_equal(answers(content), answers(again))
    names = [entry.name for entry in tflite_schema.ModelT.InitFromPackedBuf(again, 0).metadata]
    assert names.count(b"TFLITE_METADATA") == 1 and len(names) > 1


def test_what_tools_of_others_read(described):
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("labels.txt").decode().split("\n") == list("0123456789")
    found = metadata.standard(described)
    assert (found["name"], found["author"]) == ("digits", "tfopt")
    (graph,) = found["subgraph_metadata"]
    (taken,), (given,) = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
    # Pixels there are 0..255, and here 0..16.
    (unit,) = taken["process_units"]
    (options,) = unit["options"].values()
    np.testing.assert_allclose(options["mean"], [4.8 * 255 / 16], rtol=1e-6)
    np.testing.assert_allclose(options["std"], [6.0 * 255 / 16], rtol=1e-6)
    np.testing.assert_allclose(taken["stats"]["max"], [(16 - 4.8) / 6], rtol=1e-6)
    assert taken["content"]["content_properties"] == {
        "ImageProperties": {"color_space": 2, "default_size": {"width": 8, "height": 8}}
    }
    assert given["associated_files"] == [{"name": "labels.txt", "type": 2}]


def test_a_model_whose_weights_are_behind_the_flatbuffer():
    """As the converter writes those over 2 GB."""
    made = converter(small())
    made._experimental_use_buffer_offset = True
    content = converted(made)
    outside = [
        b for b in tflite_schema.ModelT.InitFromPackedBuf(content, 0).buffers if b.offset > 1
    ]
    assert len(outside) > 2 and flatbuffer.read(content).kernels()
    described = metadata.attached(content, DIGITS)
    described = metadata.attached(described, replace(DIGITS, stage="prune"))
    assert metadata.read(described).stage == "prune" and metadata.standard(described)
    assert flatbuffer.read(described).kernels() == flatbuffer.read(content).kernels()
    assert np.array_equal(answers(described, np.float32), answers(content, np.float32))
    after = [
        b for b in tflite_schema.ModelT.InitFromPackedBuf(described, 0).buffers if b.offset > 1
    ]
    assert {(new.offset - old.offset) % 16 for old, new in zip(outside, after, strict=True)} == {0}
    # Where the weights end, the attached files begin.
    assert attachment.parted(described)[0].endswith(content[outside[0].offset :])


def test_a_file_without_any(content):
    assert metadata.read(content) is None and metadata.standard(content) is None


def with_own(described, text):
    out = io.BytesIO(described)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(out, "a") as archive:
        archive.writestr("tfopt.json", text)
    return out.getvalue()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"mean":1}', "\xff", "[" * 9999, '{"front_end":{"type":1}}']
)
def test_damage_is_one_sentence(described, text):
    with pytest.raises(ValueError, match=r"^its metadata are damaged \([^\n]+\)\.$"):
        metadata.read(with_own(described, text))


def test_of_a_wrong_type_is_damage(content):
    for fields in ({"accuracy": "1"}, {"front_end": Image(peak=-1)}, {"shape": (1.5,)}):
        wrong = metadata.attached(content, replace(DIGITS, accuracy=0.0))
        made = replace(DIGITS, **fields)
        own = metadata._files(made)["tfopt.json"]
        with pytest.raises(ValueError, match=r"^its metadata are damaged \(description\."):
            metadata.read(with_own(wrong, own))
