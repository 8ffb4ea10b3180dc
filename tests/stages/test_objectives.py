import numpy as np
import pytest

from tfopt.compat import keras
from tfopt.data import Spec
from tfopt.errors import ConfigError
from tfopt.models import MLP, ResNet
from tfopt.stages import AttentionScores, AttentionTransfer, Features, Logits
from tfopt.stages.taps import LOGITS, Tap, Tapped

SPEC = Spec(shape=(16, 16, 3), class_names=("a", "b", "c"), train_size=16)
RNG = np.random.default_rng(0)


def transformer(depth, heads=2, classes=3):
    x = inputs = keras.Input((6, 8), name="input")
    for index in range(depth):
        attended = keras.layers.MultiHeadAttention(heads, 4, name=f"attention{index}")(x, x)
        x = keras.layers.Add(name=f"add{index}")([x, attended])
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="transformer")


def softmax(values):
    exponents = np.exp(values)
    return (exponents / exponents.sum(-1, keepdims=True)).astype(np.float32)


def features(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_features_are_apart_by_the_error_as_a_share_of_the_teachers_square():
    one, other = features(5, 4, 4, 2), features(5, 4, 4, 2)
    expected = ((one - other) ** 2).mean((1, 2, 3)) / (other**2).mean((1, 2, 3))
    np.testing.assert_allclose(Features().distance(one, other), expected, rtol=1e-5)
    np.testing.assert_allclose(Features().distance(9 * one, 9 * other), expected, rtol=1e-5)


def test_attention_maps_are_apart_by_where_and_not_by_how_much_or_by_width():
    one, other = features(5, 4, 4, 2), features(5, 4, 4, 7)
    maps = [np.sum(x.astype(np.float64) ** 2, -1).reshape(5, 16) for x in (one, other)]
    first, second = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    expected = ((first - second) ** 2).sum(1)
    np.testing.assert_allclose(AttentionTransfer().distance(one, 3 * other), expected, rtol=1e-4)


def test_attention_scores_are_apart_by_their_divergence():
    one, other = softmax(features(5, 2, 6, 6)), softmax(features(5, 2, 6, 6))
    expected = (other * np.log(other / one)).sum(-1).mean((1, 2))
    np.testing.assert_allclose(AttentionScores().distance(one, other), expected, rtol=1e-4)
    masked = np.concatenate([one, np.zeros_like(one)], -1)
    assert np.isfinite(AttentionScores().distance(masked, masked)).all()
    several = softmax(features(5, 3, 6, 6))
    p, q = several.mean(1), one.mean(1)
    expected = (p * np.log(p / q)).sum(-1).mean(1)
    np.testing.assert_allclose(AttentionScores().distance(one, several), expected, rtol=1e-4)


def test_the_last_layers_of_each_resolution_are_paired():
    student, teacher = ResNet(depth=8, width=4)(SPEC), ResNet(depth=14, width=8)(SPEC)
    maps = [(f"stage{n}_block1_relu", f"stage{n}_block2_relu") for n in (1, 2, 3)]
    for objective, pairs in ((AttentionTransfer(), maps), (Features(), [*maps, ("pool", "pool")])):
        assert objective.taps(student, teacher) == [(Tap(a), Tap(b)) for a, b in pairs]


@pytest.mark.parametrize(("depth", "places"), [(4, (1, 3)), (2, (0, 1)), (3, (1, 2)), (1, (0, 0))])
def test_attention_layers_are_paired_by_their_share_of_the_depth(depth, places):
    pairs = AttentionScores().taps(transformer(2), transformer(depth))
    assert [(a.layer, b.layer) for a, b in pairs] == [
        (f"attention{i}", f"attention{place}") for i, place in enumerate(places)
    ]


def test_a_tapped_model_gives_all_by_one_call_of_the_same_layers():
    model = transformer(2, heads=3)
    taps = [Tap("attention1", scores=True), Tap("add0"), Tap("attention1"), LOGITS]
    tapped, x = Tapped(model, taps), features(5, 6, 8)
    values = tapped(x, training=False)
    np.testing.assert_array_equal(values[LOGITS], model(x))
    inner = keras.Model(model.input, model.get_layer("add0").get_output_at(0))(x)
    np.testing.assert_array_equal(values[Tap("add0")], inner)
    output, scores = model.get_layer("attention1")(inner, inner, return_attention_scores=True)
    np.testing.assert_array_equal(values[Tap("attention1")], output)
    np.testing.assert_array_equal(values[Tap("attention1", scores=True)], scores)
    assert [id(v) for v in tapped.model.weights] == [id(v) for v in model.weights]


def images(width, classes=3):
    return ResNet(depth=8, width=width)(
        Spec(shape=(16, 16, 3), class_names=("a",) * classes, train_size=1)
    )


REFUSED = [
    (Logits(), lambda: (images(4), images(4, 5)), "logits of 3 classes, .* received those of 5"),
    (
        Features(pairs=(("stage1_block1_rel", "stem_relu"),)),
        lambda: (images(4), images(4)),
        "layer of the student .* received 'stage1_block1_rel'; did you mean 'stage1_block1_relu'",
    ),
    (
        Features(pairs=(("stem_relu", "stage2_block1_relu"),)),
        lambda: (images(4), images(8)),
        r"'stem_relu' of shape \(None, 16, 16, 4\) and 'stage2_block1_relu' .*8, 8, 16\)",
    ),
    (
        AttentionTransfer(),
        lambda: (MLP(units=(4,))(SPEC), images(4)),
        "a resolution that both models have, received none of the student and 16x16, 8x8, 4x4 of",
    ),
    (
        AttentionScores(),
        lambda: (transformer(0), transformer(2)),
        "received 0 in the student and 2",
    ),
    (
        AttentionScores(pairs=(("add0", "attention0"),)),
        lambda: (transformer(1), transformer(1)),
        "received 'add0'; it has: attention0",
    ),
]


@pytest.mark.parametrize(("objective", "models", "message"), REFUSED)
def test_what_can_not_be_compared_is_refused_with_both_numbers(objective, models, message):
    with pytest.raises(ConfigError, match=message):
        objective.taps(*models())
