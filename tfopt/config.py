"""The Experiment: one tree of dataclasses that describes a whole run, validated once.

Standard library only: a config file that is refused shall not wait for TensorFlow.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfopt.errors import ConfigError, nearest
from tfopt.limits import Budget
from tfopt.spec import bounded, check_tree, plain, spec

# Under which a stage's Keras model has its answers, see answers.py.
_KERAS = "keras"
_FOLDERS = ("artifacts", "teachers", "tensorboard", "wandb")
PRECISIONS = ("auto", "float32", "mixed_bfloat16")
STRATEGIES = ("auto", "cpu", "mesh", "mirrored", "multi_worker", "tpu")


@spec
class Mesh:
    """What strategy "mesh" trains on: `batch` times `model` devices.

    Each of `batch` replicas has its rows of every batch, and is itself spread over `model`
    devices, each of which has its share of the kernels of Dense, Embedding and attention layers.
    """

    batch: int = bounded(1, least=1)
    model: int = bounded(1, least=1)

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.batch * self.model

    def check(self, replicas: int) -> None:
        """Raise ConfigError unless there is something to spread, and none or its `replicas`."""
        if self.size == 1:
            raise ConfigError(
                "config.mesh: expected several devices with strategy 'mesh', received 1×1; set "
                "config.mesh.batch or config.mesh.model."
            )
        if replicas not in (0, self.batch):
            raise ConfigError(
                f"config.replicas: expected none beside config.mesh, whose {self.batch} rows "
                f"are the replicas, received {replicas}; leave it out."
            )


@spec
class Experiment:
    """All of one run: what to train on, what to make of it, and how to prove the result.

    `data` has `load(batch_size) -> Splits`; `model` is any callable `(spec) -> keras.Model`;
    `stages` run in order; `variants` are the TFLite forms that each stage is exported in
    (empty: the sensible ones for the stage). `batch_size` is global over all `replicas`
    (0: as many as there are), and the one that learning rates are meant for: where each replica
    has `replica_batch_size` instead, the global one grows with their number, and learning rates
    in proportion, after a warm-up, unless `scale_learning_rate` is off. `min_agreement` is the
    share of test examples on which an artifact must predict the class that its Keras model
    predicts; one example that differs is always allowed. `budget` is what an artifact of the last
    stage must not exceed on a microcontroller. The hosts of a run on several have
    `cluster_timeout` seconds to come together.
    `mesh` is that of strategy `mesh`, each row of which is a replica.
    `precision` is that in which stages without quantization compute: `float32`,
    `mixed_bfloat16`, or `auto`, which is the latter on a TPU. `tpu` is `local`, a name or an
    address as grpc://10.0.0.2:8470. `deterministic` turns TensorFlow's op determinism on, at a
    cost in speed. `loggers` show the run in other places than TensorBoard; `profile` has TensorFlow
    profile 10 steps of each stage for it.
    `source` is a hash of the code of a config file of your own, which the command line sets: a
    function has no fields to compare, and an edited model is another experiment.
    """

    name: str
    data: Any
    model: Callable
    stages: list
    variants: list = dataclasses.field(default_factory=list)
    strategy: str = "auto"
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    replicas: int = bounded(0, least=0)
    batch_size: int = bounded(128, least=1)
    replica_batch_size: int = bounded(0, least=0)
    scale_learning_rate: bool = True
    precision: str = "auto"
    tpu: str = "local"
    seed: int = bounded(0, least=0)
    min_agreement: float = bounded(0.95, least=0, most=1)
    budget: Budget = dataclasses.field(default_factory=Budget)
    cluster_timeout: int = bounded(60, least=1)
    deterministic: bool = False
    loggers: list = dataclasses.field(default_factory=list)
    profile: bool = False
    source: str = ""

    def validate(self) -> None:
        """Raise ConfigError for the first field that is of the wrong type or impossible."""
        check_tree(self, "config")
        if not callable(getattr(self.data, "load", None)):
            raise ConfigError(
                f"config.data: expected an object with load(batch_size), received {self.data!r}."
            )
        if hasattr(self.model, "get_weights"):
            raise ConfigError(
                "config.model: expected a function of the data's spec that makes a model, received "
                "a model; write the function, or save the model and take "
                "models.Saved(path=FILE)."
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"config.precision: expected one of {', '.join(PRECISIONS)}, received "
                f"{self.precision!r}; {nearest(self.precision, PRECISIONS)}"
            )
        self._check_devices()
        self._check_items("stages", "prepare")
        self._check_items("variants", "convert")
        self._check_items("loggers", "open")
        self._check_names([variant.name for variant in self.variants])
        self._check_stages()

    def _check_names(self, names: list[str]) -> None:
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(
                f"config.variants: expected variants of different names, as files are named by "
                f"them, received {twice[0]!r} twice; leave one of them out."
            )
        if _KERAS in names:
            raise ConfigError(
                f"config.variants[{names.index(_KERAS)}]: expected another name than that of the "
                f"Keras model's answers, received {_KERAS!r}; rename the variant."
            )

    def _check_devices(self) -> None:
        if self.strategy not in STRATEGIES:
            hint = nearest(self.strategy, STRATEGIES)
            if self.strategy == "gpu":
                hint = "'auto' takes all GPUs."
            raise ConfigError(
                f"config.strategy: expected one of {', '.join(STRATEGIES)}, "
                f"received {self.strategy!r}; {hint}"
            )
        if self.strategy == "mesh":
            self.mesh.check(self.replicas)
        elif self.mesh.size > 1:
            raise ConfigError(
                f"config.mesh: expected strategy 'mesh' for one of {self.mesh.size} devices, "
                f"received {self.strategy!r}; set config.strategy to 'mesh'."
            )
        if self.tpu != "local" and self.strategy != "tpu":
            raise ConfigError(
                f"config.tpu: expected strategy 'tpu' for {self.tpu!r}, received "
                f"{self.strategy!r}; set config.strategy to 'tpu'."
            )
        # Of 1×1 where the strategy is another; how many replicas 0 stands for is known later.
        self.check_replicas(max(self.mesh.batch, self.replicas))

    def check_replicas(self, replicas: int) -> None:
        """Raise ConfigError unless the batch divides evenly over `replicas`."""
        if self.global_batch(replicas) % replicas:
            fits = max(self.batch_size // replicas, 1) * replicas
            raise ConfigError(
                f"config.batch_size: expected a multiple of the {replicas} replicas, "
                f"received {self.batch_size}; the nearest is {fits}."
            )

    def global_batch(self, replicas: int) -> int:
        """Return the examples in one step over all `replicas`."""
        return self.replica_batch_size * replicas or self.batch_size

    def is_mixed(self, *, on_tpu: bool) -> bool:
        """Return whether stages without quantization compute in bfloat16."""
        return self.precision == "mixed_bfloat16" or (self.precision == "auto" and on_tpu)

    def learning_rate_scale(self, replicas: int) -> float:
        """Return what every learning rate is multiplied by on `replicas`."""
        scale = self.global_batch(replicas) / self.batch_size
        return scale if self.scale_learning_rate else 1.0

    def _check_items(self, name: str, method: str) -> None:
        for index, item in enumerate(getattr(self, name)):
            if not callable(getattr(item, method, None)):
                raise ConfigError(
                    f"config.{name}[{index}]: expected an object with {method}(), "
                    f"received {item!r}."
                )

    def _check_stages(self) -> None:
        if not self.stages:
            raise ConfigError("config.stages: expected at least one stage, received none.")
        earlier: list = []
        for index, stage in enumerate(self.stages):
            at = f"config.stages[{index}]"
            names = [other.name for other in earlier]
            taken = [*names, *_FOLDERS]
            if not stage.name.isidentifier() or stage.name in taken:
                raise ConfigError(
                    f"{at}.name: expected a name of letters, digits and _ that no other stage "
                    f"and no folder of the workdir has, received {stage.name!r}; give it another "
                    "with name=..."
                )
            _check_teachers(stage, at, names)
            closing = [other.name for other in earlier if other.quantizes]
            if closing:
                raise ConfigError(
                    f"{at}: expected no stage after quantization, received {stage.name!r} after "
                    f"{closing[0]!r}; move {stage.name!r} before it."
                )
            unfit = [v.name for v in self.variants if stage.quantizes and not v.takes_quantized]
            if unfit:
                raise ConfigError(
                    f"config.variants: expected variants that a quantization-aware model can be "
                    f"exported to, received {unfit[0]!r} with stage {stage.name!r}; "
                    "use Int8() or leave variants empty."
                )
            earlier.append(stage)

    def to_json(self) -> dict:
        """Return the whole tree as plain JSON values, each spec with its class as `type`."""
        return plain(self)


def _check_teachers(stage: Any, at: str, earlier: list[str]) -> None:
    for index, teacher in enumerate(stage.teachers):
        alone = teacher is stage.teacher
        path = f"{at}.teacher" if alone else f"{at}.teacher.members[{index}]"
        if teacher.model is None and teacher.stage not in earlier:
            raise ConfigError(
                f"{path}.stage: expected the name of an earlier stage, received "
                f"{teacher.stage!r}; {nearest(teacher.stage, earlier)}"
            )
        if not stage.epochs:
            raise ConfigError(
                f"{path}: expected a stage of at least one epoch, received {stage.name!r} of 0, "
                "in which nobody learns; give it epochs or no teacher."
            )
