"""A stage's model over the devices of a mesh, with DTensor; loads TensorFlow when imported.

Only what `fit` runs is spread: what prepares, measures and finishes a model sees it whole, and
checkpoints are of the whole model, so that a run may go on with another mesh or without one.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from tfopt.compat import keras, tf
from tfopt.facts import is_quantized
from tfopt.stages.callbacks import step_of
from tfopt.stages.devices import Whole, steps_of
from tfopt.stages.laid import Laid, assign, bytes_per_device, gathered, like, scope
from tfopt.stages.precision import is_mixed

_LOG = logging.getLogger(__name__)


class CannotSpreadError(Exception):
    """The mesh can't train this; the message says why, as in "has no rule for AvgPool"."""


class Spread(Whole):
    """The model laid out over `mesh`, one of DTensor's with the sides "batch" and "model".

    Kernels of Dense and Embedding layers are split by their outputs, those of attention by its
    heads (Shoeybi et al. 2019, "Megatron-LM", section 3), where "model" divides them. All others
    are whole on each device: DTensor can't split a convolution's kernel.
    """

    def __init__(self, mesh: Any) -> None:
        self.mesh = mesh
        self.options = {"mesh": mesh}
        self.copies = mesh.size
        self._student: Laid
        self._masked: list = []

    def placed(self, model: "keras.Model", teachers: list) -> tuple["keras.Model", list]:
        """Return copies of `model` and `teachers` on the mesh, those that are one still one."""
        self._masked = [layer for layer in model.layers if hasattr(layer, "pruning_vars")]
        self._student = Laid(model, self.mesh)
        columns = self.mesh.dim_size("model")
        if columns > 1 and not self._student.split:
            _LOG.warning(
                "mesh: no kernel is split, each device holds all of %s: no Dense, Embedding or "
                "attention layer of it has a width that %d devices divide.",
                *(model.name, columns),
            )
        laid = {id(teacher): Laid(teacher, self.mesh).model for teacher in teachers}
        return self._student.model, [laid[id(teacher)] for teacher in teachers]

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Lay out over the mesh what is made within, whole on each device."""
        with scope(keras.dtensor.experimental.LayoutMap(mesh=self.mesh)):
            yield

    def callbacks(self) -> list:
        """Return what masks pruned kernels, and brings weights home after an epoch."""
        masking = [Masking(self._masked, self._student)] if self._masked else []
        return [*masking, Gathering(self)]

    def steps_per_execution(self, most: int) -> int:
        """Return 1: two loops of DTensor have one name, and kernels are masked between steps."""
        del most
        return 1

    def gather(self) -> None:
        """Set the variables of the whole model to those on the mesh."""
        self._student.gather()

    def scatter(self) -> None:
        """Set the variables on the mesh to those of the whole model."""
        self._student.scatter()

    def train(self, part: Any, batch_size: int) -> Any:
        """Return the stream as DTensors, each batch split over the side "batch"."""
        return self._fed(part(0, 1), batch_size)

    def finite(self, splits: Any, split: str) -> tuple[Any, int | None]:
        """Return `split` as DTensors, and its steps."""
        # Without end, since an evaluation of all its steps would end in the middle of a batch.
        return self._fed(getattr(splits, split).repeat(), splits.batch_size), steps_of(
            splits, split
        )

    @contextlib.contextmanager
    def refusals(self, fitted: Any = None) -> Iterator[None]:
        """Turn what is raised before the first step of `fitted` into a CannotSpreadError.

        What isn't DTensor's refusal is raised again by what goes on without the mesh.
        """
        made = step_of(fitted.optimizer) if fitted else 0
        try:
            yield
        except (tf.errors.OpError, ValueError, TypeError, AttributeError) as error:
            if fitted and step_of(fitted.optimizer) != made:
                raise
            text = str(error)
            named = re.search(r"'tf\.(\w+)' op does not implement layout propagation", text)
            first = (text.splitlines() or [type(error).__name__])[0]
            raise CannotSpreadError(
                f"has no rule for {named[1]}" if named else f"says {first!r}"
            ) from error

    def bytes_each(self, fitted: "keras.Model") -> dict | None:
        """Return the bytes of weights and optimizer on each device, and those of the whole."""
        variables = [*fitted.weights, *fitted.optimizer.variables]
        return {
            "batch": self.mesh.dim_size("batch"),
            "model": self.mesh.dim_size("model"),
            "bytes_per_device": bytes_per_device(variables),
            "bytes": sum(v.shape.num_elements() * v.dtype.size for v in variables),
        }

    def _fed(self, stream: "tf.data.Dataset", batch_size: int) -> Any:
        dtensor, options = tf.experimental.dtensor, tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        each = batch_size // self.mesh.dim_size("batch")
        with _without_a_word():
            parts = stream.rebatch(each, drop_remainder=True).with_options(options)
        return dtensor.DTensorDataset(
            dataset=parts,
            mesh=self.mesh,
            layouts=tf.nest.map_structure(
                lambda x: dtensor.Layout.batch_sharded(self.mesh, "batch", rank=x.shape.rank),
                stream.element_spec,
            ),
            global_batch_size=batch_size,
            dataset_already_batched=True,
            batch_dim="batch",
        )


@contextlib.contextmanager
def _without_a_word() -> Iterator[None]:
    """Keep tf.data from warning of an option that is changed on purpose."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.setLevel(level)


class Gathering(keras.callbacks.Callback):
    """Bring the weights home after every epoch, where they are looked at and saved."""

    def __init__(self, spread: Spread) -> None:
        super().__init__()
        self._spread = spread

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Gather."""
        self._spread.gather()


class Masking(keras.callbacks.Callback):
    """Mask pruned kernels on the mesh before every step, as their wrappers do within theirs.

    A wrapper's masks are moved on the whole kernel: no device has all of it to sort.
    """

    def __init__(self, wrappers: list, student: Laid) -> None:
        super().__init__()
        self._wrappers, self._student = wrappers, student
        pairs = [(kernel, mask) for w in wrappers for kernel, mask, _ in w.pruning_vars]
        self._kernels = [(student.on_mesh(kernel), mask) for kernel, mask in pairs]
        self._masks = [like(kernel) for kernel, _ in self._kernels]
        self._apply = tf.function(self._masked)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Take the masks, which may come from a checkpoint."""
        self._scatter()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Move the masks where their schedule says so, and apply them."""
        step = step_of(self.model.optimizer) + 1
        due = []
        for wrapper in self._wrappers:
            wrapper.pruning_step.assign(step)
            if wrapper.pruning_schedule(wrapper.pruning_step)[0]:
                due.append(wrapper)
        for wrapper in due:
            for kernel, *_ in wrapper.pruning_vars:
                kernel.assign(gathered(self._student.on_mesh(kernel)))
            wrapper.pruning_obj.conditional_mask_update()
        if due:
            self._scatter()
        self._apply()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Apply the masks: the last step has moved weights away from zero."""
        self._apply()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Apply the masks, as before an evaluation."""
        self._apply()

    def _scatter(self) -> None:
        for (_, mask), spread in zip(self._kernels, self._masks, strict=True):
            assign(spread, mask.numpy())

    def _masked(self) -> None:
        for (kernel, _), mask in zip(self._kernels, self._masks, strict=True):
            kernel.assign(kernel * mask)


def why_not(stage: Any, model: "keras.Model", teachers: list) -> str:
    """Return why a mesh can't train `stage`, or nothing."""
    if stage.quantizes or any(map(is_quantized, teachers)):
        return "has no rule for quantization-aware layers"
    if stage.average:
        return "keeps no average of the weights"
    return "computes in float32 only" if is_mixed(model) else ""
