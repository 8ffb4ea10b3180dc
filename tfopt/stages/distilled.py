"""The Keras model that teachers' objectives are made of; loads TensorFlow when imported."""

from collections.abc import Sequence
from typing import Any

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.stages.distill import Teacher
from tfopt.stages.taps import LOGITS, Pairs, Tapped

_Lesson = tuple[Teacher, Pairs]


class Distilled(keras.Model):
    """A student whose training loss includes its distance to frozen teachers.

    The loss is added in `call`, so Keras's own `train_step` serves, and Keras scales it for
    the number of replicas. The student and each teacher run once, whatever is compared;
    evaluation never runs a teacher. Where teachers are cached, the input in training is
    (examples, *logits) with the logits of each of these, in their order. `projections` train
    with the student, and are of no use without its teachers.
    """

    def __init__(
        self, stage: str, student: "keras.Model", teachers: Sequence[Teacher], models: Sequence
    ) -> None:
        """Attach the `models` of `teachers`; raises ConfigError where one doesn't fit."""
        super().__init__(name=f"distilled_{student.name}")
        self._lessons = [
            (teacher, _pairs(stage, student, teacher, model))
            for teacher, model in zip(teachers, models, strict=True)
        ]
        self._cached = [i for i, teacher in enumerate(teachers) if teacher.cached]
        live = [i for i in range(len(models)) if i not in self._cached]
        # Teachers that share a model speak through the first of them.
        self._voice = {i: next(j for j in live if models[j] is models[i]) for i in live}
        self._speakers = {
            first: Tapped(models[first], self._taps(1, first)) for first in {*self._voice.values()}
        }
        self._listener = Tapped(student, self._taps(0))
        # By these two Keras finds their layers.
        self.student = self._listener.model
        self.teachers = [speaker.model for speaker in self._speakers.values()]
        for model in self.teachers:
            model.trainable = False
        self.projections = self._projected()
        # As all its parts are; on a mesh Keras would build it by a call with symbols.
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the student's logits, (batch, classes)."""
        examples, *rows = inputs if training and self._cached else (inputs,)
        found = self._listener(examples, training)
        if training:
            told = {i: speaker(examples, False) for i, speaker in self._speakers.items()}
            told |= {i: {LOGITS: row} for i, row in zip(self._cached, rows, strict=True)}
            for index in range(len(self._lessons)):
                self.add_loss(self._distance(index, found, told[self._voice.get(index, index)]))
        return found[LOGITS]

    def _distance(self, lesson: int, found: dict, told: dict) -> Any:
        """Return the weighted distance of one teacher, a mean over the batch and its pairs."""
        teacher, pairs = self._lessons[lesson]
        distances = []
        for number, (mine, theirs) in enumerate(pairs):
            project = self.projections.get(f"{lesson}_{number}", lambda value: value)
            target = tf.stop_gradient(told[theirs])
            distances.append(teacher.objective.distance(project(found[mine]), target))
        return teacher.weight * tf.reduce_mean(distances)

    def _projected(self) -> dict[str, "keras.layers.Layer"]:
        made = {}
        for lesson, first in self._voice.items():
            teacher, pairs = self._lessons[lesson]
            for number, (mine, theirs) in enumerate(pairs):
                shapes = self._listener.shape(mine), self._speakers[first].shape(theirs)
                made[f"{lesson}_{number}"] = teacher.objective.projection(*shapes)
        return {name: layer for name, layer in made.items() if layer is not None}

    def _taps(self, side: int, voice: int | None = None) -> list:
        """Return the taps of the student (side 0), or of the teachers of one voice (side 1)."""
        chosen = [i for i in range(len(self._lessons)) if voice in (None, self._voice.get(i))]
        return [pair[side] for i in chosen for pair in self._lessons[i][1]]


def _pairs(stage: str, student: "keras.Model", teacher: Teacher, model: "keras.Model") -> Pairs:
    """Return what is compared; raises ConfigError that names the stage where nothing can be."""
    wanted, received = student.input_shape, model.input_shape
    single = isinstance(received, tuple)  # and not a list of the shapes of several inputs
    try:
        if not (single and tf.TensorShape(wanted).is_compatible_with(received)):
            raise ConfigError(
                f"expected a teacher of examples of shape {wanted}, as the student takes, "
                f"received one of {received}; resize the data or take another teacher."
            )
        return teacher.objective.taps(student, model)
    except ConfigError as error:
        raise ConfigError(f"stage {stage!r}, teacher {model.name!r}: {error}") from error
