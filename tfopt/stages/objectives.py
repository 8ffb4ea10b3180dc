"""What a student shall have in common with its teacher."""

from typing import Any

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError, nearest
from tfopt.facts import is_quantized
from tfopt.spec import bounded, spec
from tfopt.stages.taps import LOGITS, Pairs, Shape, Tap, attentions, hidden

_Shapes = dict[str, Shape]
_Names = list[tuple[str, str]]


@spec
class Objective:
    """The base of all objectives: which values are compared, and how far apart they are."""

    def taps(self, student: "keras.Model", teacher: "keras.Model") -> Pairs:
        """Return what is compared, as pairs (of the student, of the teacher).

        Raises ConfigError where the two models have nothing to compare.
        """
        raise NotImplementedError

    def projection(self, student: Shape, teacher: Shape) -> "keras.layers.Layer | None":
        """Return a layer that brings a student's value of one shape to that of the teacher.

        It is trained with the student and is no part of what the stage delivers.
        """
        del student, teacher
        return None

    def distance(self, student: Any, teacher: Any) -> Any:
        """Return the distances (batch,) between two values (batch, ...), in float32."""
        raise NotImplementedError


@spec
class Logits(Objective):
    """The teacher's logits as soft targets (Hinton et al. 2015).

    The distance is `temperature² * KL(teacher ‖ student)`, both softened by `temperature`;
    the factor keeps the size of the gradients independent of it.
    """

    temperature: float = bounded(4.0, above=0)

    def taps(self, student: "keras.Model", teacher: "keras.Model") -> Pairs:
        """Return the logits; raises ConfigError where the numbers of classes differ."""
        classes, received = student.output_shape[-1], teacher.output_shape[-1]
        if classes != received:
            raise ConfigError(
                f"expected the logits of {classes} classes, as the student has, received those "
                f"of {received}; train the teacher on the same classes or compare Features()."
            )
        return [(LOGITS, LOGITS)]

    def distance(self, student: Any, teacher: Any) -> Any:
        """Return the divergences (batch,) of logits (batch, classes)."""
        log_targets = tf.nn.log_softmax(tf.cast(teacher, tf.float32) / self.temperature)
        log_student = tf.nn.log_softmax(tf.cast(student, tf.float32) / self.temperature)
        return self.temperature**2 * _divergence(log_targets, log_student)


@spec
class Features(Objective):
    """The teacher's hidden features, of any rank (Romero et al. 2014, "FitNets").

    `pairs` names layers, as ("student's", "teacher's"); empty, the last layers of each
    resolution that both models have are paired. Where the widths differ, a learned linear map
    (a 1x1 convolution, for images) takes the student's features to the teacher's width. The
    distance is the mean squared error as a share of the teacher's mean square, so that layers
    of any scale weigh alike; the paper has it unscaled and halved.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def taps(self, student: "keras.Model", teacher: "keras.Model") -> Pairs:
        """Return the named or the matched pairs of features."""
        mine, theirs = hidden(student), hidden(teacher)
        pairs = _named(self.pairs, mine, theirs) or _by_resolution(mine, theirs)
        return [(Tap(one), Tap(other)) for one, other in pairs]

    def projection(self, student: Shape, teacher: Shape) -> "keras.layers.Layer | None":
        """Return a linear map (..., student's width) -> (..., teacher's), if they differ."""
        if student[-1] == teacher[-1]:
            return None
        # A seed of its own: on a mesh other layers have been made before it.
        initial: Any = keras.initializers.GlorotUniform(seed=teacher[-1])
        layer = keras.layers.Dense(teacher[-1], use_bias=False, kernel_initializer=initial)
        # A model, since a mesh lays out no layer alone.
        inputs = keras.Input(student[1:])
        return keras.Model(inputs, layer(inputs))

    def distance(self, student: Any, teacher: Any) -> Any:
        """Return the relative squared errors (batch,) of features (batch, ..., width)."""
        target = tf.cast(teacher, tf.float32)
        error = _mean(tf.math.squared_difference(tf.cast(student, tf.float32), target))
        return error / (_mean(tf.square(target)) + keras.backend.epsilon())


@spec
class AttentionTransfer(Objective):
    """Where in an image a convolutional teacher is active (Zagoruyko and Komodakis 2017).

    The map of a layer is the mean square over its channels, scaled to length 1; the distance
    is the squared one between two maps. Widths may differ. `pairs` is as in `Features`.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def taps(self, student: "keras.Model", teacher: "keras.Model") -> Pairs:
        """Return the named or the matched pairs of maps (batch, height, width, channels)."""
        mine, theirs = (_maps(hidden(model)) for model in (student, teacher))
        pairs = _named(self.pairs, mine, theirs) or _by_resolution(mine, theirs)
        return [(Tap(one), Tap(other)) for one, other in pairs]

    def distance(self, student: Any, teacher: Any) -> Any:
        """Return the squared distances (batch,) of features (batch, height, width, channels)."""
        return tf.reduce_sum(tf.math.squared_difference(_map(student), _map(teacher)), -1)


@spec
class AttentionScores(Objective):
    """What a transformer's teacher attends to (Sun et al. 2020, "MobileBERT", section 3.2).

    The distance is the divergence of the student's attention distribution from the
    teacher's, mean over heads and queries; where the numbers of heads differ, their means are
    compared. `pairs` names MultiHeadAttention layers, as ("student's", "teacher's"); empty,
    every layer of the student is paired with one at the same share of the teacher's depth
    (Jiao et al. 2020, "TinyBERT", uniform).
    """

    pairs: tuple[tuple[str, str], ...] = ()

    def taps(self, student: "keras.Model", teacher: "keras.Model") -> Pairs:
        """Return the scores of the named or the matched pairs of layers."""
        if is_quantized(student) and not attentions(student):
            raise ConfigError(
                "objective: expected MultiHeadAttention layers in the student, received a "
                "quantization-aware one, in which they are operators that round one by one; use "
                "Features(), or AttentionScores() in the stage before."
            )
        mine, theirs = (
            {name: shape for name, shape in hidden(model).items() if name in attentions(model)}
            for model in (student, teacher)
        )
        pairs = _named(self.pairs, mine, theirs) or _by_depth(list(mine), list(theirs))
        return [(Tap(one, scores=True), Tap(other, scores=True)) for one, other in pairs]

    def distance(self, student: Any, teacher: Any) -> Any:
        """Return the divergences (batch,) of scores (batch, heads, queries, keys)."""
        student, teacher = tf.cast(student, tf.float32), tf.cast(teacher, tf.float32)
        if student.shape[1] != teacher.shape[1]:
            student, teacher = (tf.reduce_mean(x, 1, keepdims=True) for x in (student, teacher))
        # A masked key has a score of exactly 0.
        log_student, log_teacher = (
            tf.math.log(x + keras.backend.epsilon()) for x in (student, teacher)
        )
        return _mean(_divergence(log_teacher, log_student))


def _named(pairs: Any, student: _Shapes, teacher: _Shapes) -> _Names:
    """Return `pairs` if all of them can be compared, else raise ConfigError."""
    for pair in pairs:
        for name, found, whose in zip(
            pair, (student, teacher), ("student", "teacher"), strict=True
        ):
            if name not in found:
                raise ConfigError(
                    f"objective.pairs: expected a layer of the {whose} that can be compared, "
                    f"received {name!r}; {nearest(name, found)}"
                )
        mine, theirs = student[pair[0]], teacher[pair[1]]
        if mine[1:-1] != theirs[1:-1]:
            raise ConfigError(
                f"objective.pairs: expected two layers of one resolution, received {pair[0]!r} "
                f"of shape {mine} and {pair[1]!r} of shape {theirs}; pair others."
            )
    return [(one, other) for one, other in pairs]


def _by_resolution(student: _Shapes, teacher: _Shapes) -> _Names:
    """Return the pairs of last layers of each resolution that both have."""
    last, other = ({shape[1:-1]: name for name, shape in x.items()} for x in (student, teacher))
    pairs = [(name, other[resolution]) for resolution, name in last.items() if resolution in other]
    if not pairs:
        one, two = (", ".join("x".join(map(str, r)) for r in x) or "none" for x in (last, other))
        raise ConfigError(
            f"objective: expected a resolution that both models have, received {one} of the "
            f"student and {two} of the teacher; compare another pair of models, or Logits()."
        )
    return pairs


def _by_depth(student: list[str], teacher: list[str]) -> _Names:
    """Return for each of the student's layers the teacher's at the same share of the depth."""
    if not student or not teacher:
        raise ConfigError(
            "objective: expected MultiHeadAttention layers in both models, received "
            f"{len(student)} in the student and {len(teacher)} in the teacher; use Features() or, "
            "for images, AttentionTransfer()."
        )
    # Rounded up, in whole numbers: the last layers meet, and a shallower teacher serves too.
    place = [-(-(index + 1) * len(teacher) // len(student)) - 1 for index in range(len(student))]
    return [(name, teacher[index]) for name, index in zip(student, place, strict=True)]


def _maps(shapes: _Shapes) -> _Shapes:
    return {name: shape for name, shape in shapes.items() if len(shape) == 4}


def _map(features: Any) -> Any:
    energy = tf.reduce_mean(tf.square(tf.cast(features, tf.float32)), -1)
    return tf.math.l2_normalize(tf.reshape(energy, [tf.shape(energy)[0], -1]), -1)


def _mean(values: Any) -> Any:
    """Return the mean (batch,) of values (batch, ...)."""
    return tf.reduce_mean(values, list(range(1, len(values.shape))))


def _divergence(log_target: Any, log_other: Any) -> Any:
    return tf.reduce_sum(tf.exp(log_target) * (log_target - log_other), -1)
