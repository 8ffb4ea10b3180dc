"""The contract of data, models and stages, for the tests of whoever writes a new one.

Each function raises AssertionError with what is broken, or the error that a user would see.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfopt import evaluate, export
from tfopt.checkpoint import load_model, save_model
from tfopt.compat import keras
from tfopt.data import Spec, Splits, from_arrays
from tfopt.export.inputs import input_names
from tfopt.facts import activation_bits
from tfopt.graph import rebuilt
from tfopt.runner import Runner
from tfopt.stages import AtOnce, Cluster, Prune, Quantize, Stage, distill
from tfopt.stages.carry_out import carry_out
from tfopt.stages.train import Place

_SPEC = Spec(shape=(8, 8, 1), class_names=("a", "b", "c", "d"), train_size=16)
_BATCH = 8


def check_data(data: Any, batch_size: int = 8) -> Splits:
    """Check that `data.load(batch_size)` keeps what `Splits` promises, and return it."""
    splits = data.load(batch_size)
    spec, steps = splits.spec, splits.steps_per_epoch
    assert steps >= 1, f"an epoch has {steps} steps: {spec.train_size} examples"
    shapes = tuple((batch_size, *shape) for shape in (spec.shape, ()))
    for name, stream, parts in _streams(splits):
        found = tuple(tuple(part.shape) for part in stream.element_spec)
        assert found == (*shapes, (batch_size,))[:parts], f"{name}: batches of shapes {found}"
        dtypes = [part.dtype.name for part in stream.element_spec]
        assert dtypes == ["float32", "int32", "float32"][:parts], f"{name}: dtypes {dtypes}"
    for name, stream, _ in _streams(splits):
        batches = [list(map(np.asarray, batch)) for batch in stream.take(steps)]
        assert all(np.isfinite(batch[0]).all() for batch in batches), f"{name}: not finite"
        labels = np.concatenate([batch[1] for batch in batches])
        assert 0 <= labels.min() <= labels.max() < spec.classes, f"{name}: label out of range"
    for name in ("validation", "test"):
        weights = np.concatenate([np.asarray(batch[2]) for batch in getattr(splits, name)])
        assert np.isclose(weights.mean(), 1, rtol=1e-5), f"{name}: mean weight {weights.mean()}"
    _check_same(splits.train(0).skip(steps), splits.train(1), steps, "epoch 1 after a resume")
    _check_same(splits.train(0), data.load(batch_size).train(0), steps, "a second load")
    if splits.in_order is not None:
        _check_rows(splits)
    return splits


def _streams(splits: Splits) -> list[tuple[str, Any, int]]:
    return [
        ("train", splits.train(0), 2),
        ("validation", splits.validation, 3),
        ("test", splits.test, 3),
    ]


def _check_same(one: Any, other: Any, steps: int, what: str) -> None:
    pairs = zip(one.take(steps), other.take(steps), strict=True)
    for (examples, labels), (other_examples, other_labels) in pairs:
        same = np.array_equal(examples, other_examples) and np.array_equal(labels, other_labels)
        assert same, f"{what} gives other batches: draw by seed and epoch alone"


def _check_rows(splits: Splits) -> None:
    batches = [list(map(np.asarray, batch)) for batch in splits.in_order]
    weights = np.concatenate([batch[2] for batch in batches])
    count, size = np.count_nonzero(weights), splits.spec.train_size
    assert count == size, f"in_order: {count} examples of {size}"
    examples = np.concatenate([batch[0] for batch in batches])[weights > 0]
    for (found, rows), _ in splits.train(1, np.arange(count)).take(2):
        assert np.array_equal(found, examples[rows]), "train: rows of other examples than in_order"


def check_model(model: Any, *, spec: Spec = _SPEC) -> None:
    """Check that `model(spec)` trains, prunes, clusters, quantizes, keeps zeros and is exported.

    Takes seconds for a small model and minutes for one of hundreds of layers, with a few
    steps on made-up examples for each stage.
    """
    built, again = _built(model, spec), _built(model, spec)
    assert built.output_shape == (None, spec.classes), f"logits of shape {built.output_shape}"
    assert built.get_config() == again.get_config(), "two builds differ: name every layer"
    weights = zip(built.get_weights(), again.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in weights), "two builds differ"
    nested = [layer.name for layer in built.layers if isinstance(layer, keras.Model)]
    assert not nested, f"not flat: {nested} are models inside the model"
    trained = check_stage(Stage(name="train"), built, spec=spec)
    check_stage(Quantize(name="quantize"), rebuilt(trained), spec=spec)
    sparse = check_stage(Prune(name="prune", sparsity=0.5, growth=AtOnce()), trained, spec=spec)
    clustered = check_stage(Cluster(name="cluster", clusters=8, epochs=0), sparse, spec=spec)
    check_stage(Quantize(name="quantize_clustered"), clustered, spec=spec)


def check_stage(
    stage: Stage, model: "keras.Model | None" = None, *, spec: Spec = _SPEC
) -> "keras.Model":
    """Check one epoch of `stage` on `model` (default: a small one), and return the result.

    The stage must deliver what its own `check` asks for, and its model must reload from disk
    with equal logits and become TFLite files that LiteRT runs, with no fewer zeros.
    """
    keras.utils.set_random_seed(0)
    splits, model = _made_up(spec), model or _small(spec)
    teachers = distill.loaded(stage.teachers, lambda _: _small(spec))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        finished = carry_out(
            stage,
            model,
            teachers,
            splits,
            Place(workdir=path, trained=True),
        ).model
        save_model(finished, path / "model.h5")
        loaded = load_model(path / "model.h5")
    reference = evaluate.logits(finished, splits.test)
    reloaded, _ = evaluate.logits(loaded, splits.test)
    assert np.array_equal(reference[0], reloaded), (
        f"stage {stage.name!r}: reloads with other logits"
    )
    (*_, variant) = export.sensible(activation_bits(finished))
    check_variant(variant, loaded, spec=spec)
    return loaded


def check_variant(
    variant: Any, model: "keras.Model | None" = None, *, spec: Spec = _SPEC
) -> evaluate.Measurement:
    """Check that `variant` of `model` (default: a small one) runs, and return what was measured.

    LiteRT must run it at any batch size, with finite logits, and find each kernel's zeros and
    shared values, and the signature, `serving_default`, with named inputs, of batch 1, and the
    output `logits`.
    """
    splits, model = _made_up(spec), model or _small(spec)
    artifact = export.Artifact(
        stage="train", variant=variant.name, content=variant.convert(model, _examples(splits))
    )
    _check_signature(artifact, model)
    reference = evaluate.logits(model, splits.test)
    measured = evaluate.measure(
        artifact,
        outputs=evaluate.answers(artifact, model, splits.test),
        model=model,
        test=splits.test,
        reference=reference,
        min_agreement=0,
    )
    assert np.isfinite(measured.max_logit_difference), f"{artifact.name}: logits aren't finite"
    return measured


def _check_signature(artifact: export.Artifact, model: Any) -> None:
    interpreter = Runner(artifact, threads=1).interpreter
    found, names = interpreter.get_signature_list(), input_names(model)
    for ends in found.values():
        ends["inputs"] = sorted(ends["inputs"])
    expected = {"serving_default": {"inputs": sorted(names), "outputs": ["logits"]}}
    assert found == expected, f"{artifact.name}: has the signatures {found}"
    batches = [details["shape"][0] for details in interpreter.get_input_details()]
    assert set(batches) == {1}, f"{artifact.name}: takes batches of {batches}, not of 1"


def _examples(splits: Splits) -> np.ndarray:
    return np.concatenate([np.asarray(batch) for batch, _ in splits.train(0).take(2)])


def _built(model: Any, spec: Spec) -> "keras.Model":
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return model(spec)


def _small(spec: Spec) -> "keras.Model":
    layers = keras.layers
    inputs = layers.Input(spec.shape, name="input")
    outputs = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    outputs = layers.BatchNormalization(name="bn")(outputs)
    outputs = layers.ReLU(name="relu")(outputs)
    outputs = layers.GlobalAveragePooling2D(name="pool")(outputs)
    return keras.Model(inputs, layers.Dense(spec.classes, name="logits")(outputs), name="small")


def _made_up(spec: Spec) -> Splits:
    """Return examples that are their class's pattern with noise, two batches of them."""
    rng = np.random.default_rng(0)
    count = max(2 * _BATCH, spec.classes)
    labels = np.fromiter(itertools.islice(itertools.cycle(range(spec.classes)), count), np.int32)
    patterns = rng.normal(size=(spec.classes, *spec.shape))
    examples, other = (
        (patterns[labels] + rng.normal(size=(count, *spec.shape))).astype(np.float32)
        for _ in range(2)
    )
    return from_arrays(
        train=(examples, labels),
        validation=(other, labels),
        test=(other, labels),
        class_names=spec.class_names,
        batch_size=_BATCH,
    )
