import numpy as np
import pytest

from tfopt import evaluate, export
from tfopt.checkpoint import load_model, reloaded, save_model
from tfopt.compat import keras, litert
from tfopt.config import Experiment
from tfopt.data import Digits, Spec
from tfopt.errors import ConfigError
from tfopt.fusion import Ensemble, MeanLogits, MeanProbabilities
from tfopt.stages import Stage

SPEC = Spec(shape=(6, 6, 1), class_names=("a", "b", "c"), train_size=8)
IMAGES = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, 9, size=(8, 5)).astype(np.int32)


def image_model(seed, classes=3, name="logits"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 1), name="input")
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x) * 5.0
    return keras.Model(inputs, keras.layers.Dense(classes, name=name)(x), name="image")


def text_model():
    inputs = keras.Input((5,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(9, 4, name="embedding")(inputs)
    x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="text_logits")(x), name="text")


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
@pytest.mark.parametrize("output", [MeanLogits(), MeanProbabilities()])
def test_is_the_mean_of_saved_models_as_one_flat_model_and_as_a_file(output, weights, tmp_path):
    one, two = image_model(1), image_model(2)
    save_model(two, tmp_path / "two.h5")
    ensemble = Ensemble(models=(one, str(tmp_path / "two.h5")), output=output, weights=weights)
    save_model(ensemble(SPEC), tmp_path / "both.h5")
    both = load_model(tmp_path / "both.h5")
    assert not any(isinstance(layer, keras.Model) for layer in both.layers)
    shares = np.array(weights or (1, 1))[:, None, None] / sum(weights or (1, 1))
    parts = np.stack([one(IMAGES), two(IMAGES)])
    mean = (shares * parts).sum(0)
    if isinstance(output, MeanProbabilities):
        mean = np.log((shares * softmax(parts)).sum(0))
    assert np.allclose(both(IMAGES), mean, atol=1e-5)
    interpreter = litert.Interpreter(model_content=export.Float32().convert(both, IMAGES))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGES[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.allclose(found, mean[:1], atol=1e-5)


def test_a_probability_that_underflows_gives_a_finite_logit():
    model = image_model(1)
    model.layers[-1].set_weights([np.zeros((4, 3)), np.array([0.0, 1000.0, 0.0])])
    found = Ensemble(models=(model, model), output=MeanProbabilities()).load()(IMAGES)
    assert np.isfinite(found).all()


def test_a_text_and_an_image_branch_become_one_model_with_two_inputs():
    text, image = text_model(), image_model(1)
    both = reloaded(Ensemble(models=(text, image)).load())
    assert both.input_names == ["tokens", "input"]
    assert {"embedding", "conv"} <= {layer.name for layer in both.layers}, "no name clashes"
    expected = (text(TOKENS).numpy() + image(IMAGES).numpy()) / 2
    assert np.allclose(both([TOKENS, IMAGES]), expected, atol=1e-6)


@pytest.mark.parametrize(
    "variant",
    [
        *(export.Float32(), export.Int8(), export.Int8(calibration=export.MSE())),
        *(
            pytest.param(variant, marks=pytest.mark.slow)
            for variant in (export.Float16(), export.DynamicRange(), export.Int16x8())
        ),
    ],
    ids=lambda variant: variant.name,
)
def test_models_with_different_inputs_are_one_file_that_is_measured(variant):
    both = Ensemble(models=(text_model(), image_model(1))).load()
    examples = {"input": IMAGES, "tokens": TOKENS}
    content = variant.convert(both, examples)
    artifact = export.Artifact(stage="fuse", variant=variant.name, content=content)
    test = [(examples, np.arange(8) % 3, np.ones(8))]
    expected, labels = reference = evaluate.logits(both, test)
    assert np.allclose(expected, both([TOKENS, IMAGES]), atol=1e-6)
    assert np.array_equal(labels, np.arange(8) % 3)
    found = evaluate.measure(
        artifact,
        outputs=evaluate.answers(artifact, both, test),
        model=both,
        test=test,
        reference=reference,
        min_agreement=0.5,
    )
    exact = variant.name in ("float32", "float16", "dynamic")  # kernels this small stay float
    assert found.max_logit_difference < (1e-3 if exact else 0.05) * np.ptp(expected)
    assert exact == (found.layers == ())


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (IMAGES, "an array for each input, tokens, input, received 1; give a dict"),
        ({"tokens": TOKENS, "image": IMAGES}, r"received \['tokens', 'image'\]"),
        ((TOKENS[:3], IMAGES), r"as many for each input, received {'tokens': 3, 'input': 8}"),
    ],
)
def test_examples_for_other_inputs_are_refused(examples, message):
    both = Ensemble(models=(text_model(), image_model(1))).load()
    with pytest.raises(ConfigError, match=message):
        export.Int8().convert(both, examples)


def test_alike_inputs_are_one_unless_they_are_asked_to_be_separate():
    one, two = image_model(1), image_model(2)
    assert len(Ensemble(models=(one, two)).load().inputs) == 1
    both = Ensemble(models=(one, two), separate=True).load()
    expected = (one(IMAGES).numpy() + two(-IMAGES).numpy()) / 2
    assert np.allclose(both([IMAGES, -IMAGES]), expected, atol=1e-6)


def test_an_ensemble_of_an_ensemble():
    one, two = image_model(1), image_model(2)
    found = Ensemble(models=(Ensemble(models=(one, two)), one), weights=(2.0, 1.0)).load()
    expected = (2 * one(IMAGES).numpy() + two(IMAGES).numpy()) / 3
    assert np.allclose(found(IMAGES), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (lambda: (), "expected at least one model"),
        (lambda: ("gone.h5",), "expected a saved Keras model that exists, received 'gone.h5'"),
        (lambda: (3,), "expected the path of a saved model .* received 3"),
        (
            lambda: (image_model(1), image_model(2, classes=4)),
            r"received \(None, 4\) of Ensemble.models\[1\] \(image\) and \(None, 3\) of Ens",
        ),
        (lambda: (text_model(),), r"of the data's shape \(6, 6, 1\), received \(5,\)"),
    ],
)
def test_what_is_no_ensemble_is_refused(models, message):
    with pytest.raises(ConfigError, match=message):
        Ensemble(models=models())(SPEC)


def test_weights_that_fit_no_models_are_refused():
    ensemble = Ensemble(models=("a.h5", "b.h5"), weights=(1.0,))
    experiment = Experiment(name="x", data=Digits(), model=ensemble, stages=[Stage()])
    with pytest.raises(ConfigError, match=r"config.model.weights: expected a number above 0 for"):
        experiment.validate()
