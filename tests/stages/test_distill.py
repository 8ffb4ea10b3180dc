import numpy as np
import pytest

from tfopt.checkpoint import save_model
from tfopt.compat import keras
from tfopt.data import from_arrays
from tfopt.errors import ConfigError
from tfopt.models import Saved
from tfopt.stages import (
    SGD,
    AttentionScores,
    AttentionTransfer,
    Features,
    Logits,
    Prune,
    Quantize,
    Stage,
    Teacher,
    Teachers,
    kept,
)
from tfopt.stages.distill import attached, loaded
from tfopt.stages.kept import kept_logits
from tfopt.stages.ready import compile_model
from tfopt.stages.taps import Tap, Tapped
from tfopt.stages.train import Place, train
from tfopt.testing import check_stage


def network(width, seed, classes=3):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4, 4, 1), name="input")
    x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="network")


def data(augment=None, order=slice(None), batch_size=8):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(26, 4, 4, 1)).astype(np.float32), np.arange(26) % 3
    images, labels = images[order], labels[order]
    return from_arrays(
        train=(images, labels),
        validation=(images[:5], labels[:5]),
        test=(images[5:9] + 1, labels[5:9]),
        class_names=("a", "b", "c"),
        batch_size=batch_size,
        augment=augment,
    )


def one_batch():
    return next(iter(data().train(0)))


def compiled(student, teacher, models, rate=0.1):
    stage = Stage(teacher=teacher, optimizer=SGD(), learning_rate=rate)
    model = attached("stage", student, stage.teachers, models, data())
    compile_model(stage, model, steps=1)
    return model


def trained(student, teacher, models, folder, splits=None, epochs=3):
    stage = Stage(teacher=teacher, optimizer=SGD(), learning_rate=0.1, epochs=epochs)
    return train(
        stage,
        student,
        models,
        splits or data(),
        Place(workdir=folder),
    ).history


def softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def test_the_loss_is_the_hard_one_and_the_weighted_distances_to_each_teacher():
    examples, labels = one_batch()
    student, (first, second) = network(4, 1), (network(4, 2), network(4, 3))
    teacher = Teachers(
        members=(
            Teacher(weight=0.7, objective=Logits(temperature=3.0)),
            Teacher(weight=0.2, objective=Features(pairs=(("pool", "pool"),))),
            Teacher(weight=0.4, objective=AttentionTransfer()),
        )
    )
    model = compiled(student, teacher, [first, second, second], rate=1e-9)
    logits, targets = student(examples, training=True).numpy(), first(examples).numpy()
    p, q = softmax(targets / 3), softmax(logits / 3)
    hard = -np.log(softmax(logits)[np.arange(8), labels]).mean()
    soft = 9 * (p * np.log(p / q)).sum(-1).mean()

    def values(net, name, training):
        return keras.Model(net.input, net.get_layer(name).get_output_at(0))(examples, training)

    pools = values(student, "pool", True), values(second, "pool", False)
    maps = values(student, "relu", True), values(second, "relu", False)
    hint, maps = Features().distance(*pools), AttentionTransfer().distance(*maps)
    expected = hard + 0.7 * soft + 0.2 * np.mean(hint) + 0.4 * np.mean(maps)
    assert model.train_on_batch(examples, labels)[0] == pytest.approx(expected, rel=1e-5)
    plain = -np.log(softmax(student(examples).numpy())[np.arange(8), labels]).mean()
    assert model.evaluate(examples, labels, verbose=0)[0] == pytest.approx(plain, rel=1e-5)


def test_a_teacher_stays_as_it_was_runs_once_a_step_and_never_in_evaluation():
    examples, labels = one_batch()
    student, master = network(4, 1), network(8, 2)
    calls = []
    called = master.get_layer("conv").call
    master.get_layer("conv").call = lambda x: calls.append(x.shape[0]) or called(x)
    members = Teacher(), Teacher(objective=Features()), Teacher(objective=AttentionTransfer())
    model = compiled(student, Teachers(members=members), [master] * 3)
    before, weights = len(calls), [w.copy() for w in master.get_weights()]
    model.run_eagerly = True
    model.fit(examples, labels, verbose=0)
    assert len(calls) == before + 1
    model.evaluate(examples, labels, verbose=0)
    assert len(calls) == before + 1
    assert all(map(np.array_equal, weights, master.get_weights()))


def test_a_projection_learns_and_is_no_part_of_the_student():
    student, master = network(4, 1), network(8, 2)
    names = [weight.name for weight in student.weights]
    model = compiled(student, Teacher(objective=Features()), [master])
    projections = [layer.weights[0] for layer in model.projections.values()]
    assert [tuple(kernel.shape) for kernel in projections] == [(4, 8), (4, 8)]
    before = [weight.numpy() for weight in (*student.weights, *projections)]
    model.fit(*one_batch(), verbose=0)
    after = [weight.numpy() for weight in (*student.weights, *projections)]
    assert not any(map(np.array_equal, before, after))
    assert [weight.name for weight in student.weights] == names


def test_listening_to_hidden_layers_moves_batch_normalization_once():
    examples, labels = one_batch()
    student, alone = network(4, 1), network(4, 1)
    alone(examples, training=True)
    teacher = Teacher(objective=AttentionTransfer())
    compiled(student, teacher, [network(8, 2)]).train_on_batch(examples, labels)
    for mine, expected in zip(
        student.get_layer("bn").non_trainable_weights,
        alone.get_layer("bn").non_trainable_weights,
        strict=True,
    ):
        np.testing.assert_allclose(mine, expected, rtol=1e-5)


@pytest.mark.parametrize("stage", [Prune, Quantize])
def test_layers_are_found_by_their_own_names_in_what_a_stage_prepared(stage):
    hints = Teacher(objective=Features(pairs=(("relu", "relu"), ("pool", "pool"))))
    taught, plain = check_stage(stage(teacher=hints)), check_stage(stage())
    assert [w.shape for w in taught.weights] == [w.shape for w in plain.weights]
    assert not all(map(np.array_equal, taught.get_weights(), plain.get_weights()))


def transformer(heads, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4, 4, 1), name="input")
    x = keras.layers.Reshape((4, 4), name="tokens")(inputs)
    x = keras.layers.MultiHeadAttention(heads, 4, name="attention")(x, x)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="transformer")


def test_a_transformer_learns_where_its_teacher_looks(tmp_path):
    student, master = transformer(2, 1), transformer(3, 2)
    tap, objective = Tap("attention", scores=True), AttentionScores()

    def apart():
        scores = (Tapped(model, [tap])(one_batch()[0], False)[tap] for model in (student, master))
        return float(np.mean(objective.distance(*scores)))

    before = apart()
    trained(student, Teacher(objective=objective, weight=5.0), [master], tmp_path, epochs=8)
    assert apart() < before / 2


def test_attention_that_quantization_took_apart_is_no_objective():
    stage = Quantize(teacher=Teacher(objective=AttentionScores()))
    prepared = stage.prepare(transformer(2, 1), 3, data().samples)
    with pytest.raises(ConfigError, match="in the student, received a quantization-aware one"):
        attached("quantize", prepared, stage.teachers, [transformer(2, 2)], data())


def test_kept_logits_teach_what_a_live_teacher_teaches(tmp_path):
    def history(cached):
        members = (
            Teacher(weight=0.5, cached=cached),
            Teacher(objective=Features()),
            Teacher(weight=2.0, cached=cached),
        )
        models = [network(8, 2), network(8, 3), network(4, 4)]
        folder = tmp_path / str(cached)
        return trained(network(4, 1), Teachers(members=members), models, folder)

    live, found = history(cached=False), history(cached=True)
    assert len(list((tmp_path / "True" / "teachers").iterdir())) == 2
    for one, other in zip(live, found, strict=True):
        for name in ("loss", "val_loss", "val_accuracy"):
            assert one[name] == pytest.approx(other[name], rel=1e-5)


def test_logits_are_kept_by_the_number_of_the_example_and_by_the_teacher(tmp_path, monkeypatch):
    splits, master = data(), network(4, 2)
    logits = kept_logits(master, splits, tmp_path)
    assert (logits.shape, logits.dtype) == ((26, 3), np.float32)
    for (examples, rows), _ in splits.train(2, logits).take(3):
        np.testing.assert_allclose(master(examples), rows, rtol=1e-5, atol=1e-6)
    master.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
    changed = kept_logits(master, splits, tmp_path)
    np.testing.assert_allclose(changed - logits, [[1.0, 2.0, 3.0]] * 26, atol=1e-5)
    monkeypatch.setattr(kept, "_write", None)
    np.testing.assert_array_equal(kept_logits(master, splits, tmp_path), changed)


def test_logits_are_kept_by_all_examples_and_not_by_how_they_begin(tmp_path, monkeypatch):
    master, order = network(4, 2), [*range(24), 25, 24]
    first = kept_logits(master, data(), tmp_path)
    swapped = kept_logits(master, data(order=order), tmp_path)
    np.testing.assert_allclose(swapped, first[order], rtol=1e-5)
    monkeypatch.setattr(kept, "_write", None)
    assert np.array_equal(kept_logits(master, data(batch_size=5), tmp_path), first)


def test_logits_of_augmented_examples_can_not_be_kept():
    splits = data(augment=lambda examples, seed: examples)
    with pytest.raises(ConfigError, match="stage 'x', teacher.cached: expected data whose .* the"):
        attached("x", network(4, 1), (Teacher(cached=True),), [network(4, 2)], splits)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_saved_model_teaches(suffix, tmp_path):
    master, path = network(4, 2), tmp_path / f"master.{suffix}"
    save_model(master, path) if suffix == "h5" else master.save(path)
    teacher = Teacher(model=Saved(path=str(path)))
    (found, same, other) = loaded((teacher, Teacher(model=Saved(path=str(path))), Teacher()), str)
    assert all(map(np.array_equal, master.get_weights(), found.get_weights()))
    assert found is same
    assert other == "train"


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_file_that_holds_no_model_is_refused(content, tmp_path):
    path = tmp_path / "model.h5"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="Saved.path: expected a .*, received .*model"):
        Saved(path=str(path)).load()


def test_a_teacher_of_other_examples_is_refused_with_both_shapes():
    inputs = keras.Input((5, 5, 1))
    other = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)), name="big")
    message = (
        r"stage 'x', teacher 'big': expected .* \(None, 4, 4, 1\), .* one of \(None, 5, 5, 1\)"
    )
    with pytest.raises(ConfigError, match=message):
        attached("x", network(4, 1), (Teacher(),), [other], data())
