"""The teacher: an objective that any stage may train against."""

from tfopt.compat import keras
from tfopt.config import bounded, spec


@spec
class Teacher:
    """The logits of an earlier stage's model as soft targets (Hinton et al. 2015).

    `stage` names the stage that trained the teacher. To the hard loss, which stays Keras's,
    comes `weight * temperature² * KL(teacher ‖ student)`, both softened by `temperature`. The
    factor `temperature²` keeps the size of the soft gradients independent of the temperature.
    Validation loss is the hard loss alone, so that it compares between stages.
    """

    stage: str = "train"
    weight: float = bounded(1.0, above=0)
    temperature: float = bounded(4.0, above=0)

    def attach(self, student: "keras.Model", teacher: "keras.Model") -> "keras.Model":
        """Return a model that computes `student`'s logits and adds the soft loss in training."""
        # Deferred, since a subclass of keras.Model would load TensorFlow with every config.
        from tfopt.stages.distilled import Distilled

        return Distilled(student, teacher, self.weight, self.temperature)
