"""The Experiment: one tree of dataclasses that describes a whole run, validated once.

Standard library only. Types that a config file sets are checked by nobody on the way, and
the command line overrides single fields later, so `Experiment.validate` looks at the whole
tree after both.
"""

import dataclasses
import difflib
import fnmatch
import functools
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:
    from typing_extensions import dataclass_transform

_FOLDERS = ("artifacts", "teachers", "tensorboard")
PRECISIONS = ("auto", "float32", "mixed_bfloat16")
STRATEGIES = ("auto", "cpu", "mesh", "mirrored", "multi_worker", "tpu")
_Class = TypeVar("_Class", bound=type)


class ConfigError(Exception):
    """What the user asked for can't be done; the message is one sentence that says what to do."""


class RunError(Exception):
    """The run can't keep what was asked of it; the message says what and what to do."""


def nearest(name: str, names: typing.Iterable[str]) -> str:
    """Return ` Did you mean ...?` with the name that is closest to `name`, or all of them."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(names) or 'none'}."


def check_patterns(at: str, patterns: typing.Iterable[str], names: list[str]) -> None:
    """Raise ConfigError, naming the place `at`, for a pattern that none of the layers has."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(
                f"{at}: expected names or patterns of layers, received {pattern!r}; "
                f"{nearest(pattern, names)}"
            )


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
def spec(cls: _Class) -> _Class:
    """Make `cls` a slotted, keyword-only dataclass that names the nearest field on a typo."""
    made = dataclasses.dataclass(slots=True, kw_only=True)(cls)
    init = made.__init__
    names = [field.name for field in dataclasses.fields(made)]

    def checked_init(self: Any, *args: Any, **values: Any) -> None:
        for name in values:
            if name not in names:
                raise ConfigError(f"{cls.__name__} has no field {name!r}; {nearest(name, names)}")
        init(self, *args, **values)

    made.__init__ = checked_init
    return made


def bounded(
    default: Any = dataclasses.MISSING,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """Declare a numeric field whose value `validate` holds to the given bounds."""
    bounds = [
        (f"of at least {least:g}", least, lambda value: value >= least),
        (f"above {above:g}", above, lambda value: value > above),
        (f"of at most {most:g}", most, lambda value: value <= most),
        (f"below {below:g}", below, lambda value: value < below),
    ]
    stated = [(limit, test) for limit, bound, test in bounds if abs(bound) < math.inf]
    return dataclasses.field(default=default, metadata={"bounds": stated})


def having(method: str, default: Callable) -> Any:
    """Declare a field whose value `validate` holds to having `method`; `default` makes one."""
    return dataclasses.field(default_factory=default, metadata={"method": method})


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
    predicts; one example that differs is always allowed. The hosts of a run on several have
    `cluster_timeout` seconds to come together.
    `mesh` is that of strategy `mesh`, each row of which is a replica.
    `precision` is that in which stages without quantization compute: `float32`,
    `mixed_bfloat16`, or `auto`, which is the latter on a TPU. `tpu` is `local`, a name or an
    address as grpc://10.0.0.2:8470. `deterministic` turns TensorFlow's op determinism on, at a
    cost in speed.
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
    cluster_timeout: int = bounded(60, least=1)
    deterministic: bool = False
    source: str = ""

    def validate(self) -> None:
        """Raise ConfigError for the first field that is of the wrong type or impossible."""
        _check_tree(self, "config")
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
        if self.strategy not in STRATEGIES:
            hint = nearest(self.strategy, STRATEGIES)
            if self.strategy == "gpu":
                hint = "'auto' takes all GPUs."
            raise ConfigError(
                f"config.strategy: expected one of {', '.join(STRATEGIES)}, "
                f"received {self.strategy!r}; {hint}"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"config.precision: expected one of {', '.join(PRECISIONS)}, received "
                f"{self.precision!r}; {nearest(self.precision, PRECISIONS)}"
            )
        if self.strategy != "mesh" and self.mesh.size > 1:
            raise ConfigError(
                f"config.mesh: expected strategy 'mesh' for one of {self.mesh.size} devices, "
                f"received {self.strategy!r}; set config.strategy to 'mesh'."
            )
        if self.strategy == "mesh" and self.mesh.size == 1:
            raise ConfigError(
                "config.mesh: expected several devices with strategy 'mesh', received 1×1; set "
                "config.mesh.batch or config.mesh.model."
            )
        if self.strategy == "mesh" and self.replicas not in (0, self.mesh.batch):
            raise ConfigError(
                f"config.replicas: expected none beside config.mesh, whose {self.mesh.batch} rows "
                f"are the replicas, received {self.replicas}; leave it out."
            )
        self.check_replicas(self.mesh.batch if self.strategy == "mesh" else self.replicas or 1)
        self._check_items("stages", "prepare")
        self._check_items("variants", "convert")
        names = [variant.name for variant in self.variants]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(
                f"config.variants: expected variants of different names, as files are named by "
                f"them, received {twice[0]!r} twice; leave one of them out."
            )
        self._check_stages()

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


def _check_tree(node: Any, at: str) -> None:
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value, where = getattr(node, field.name), f"{at}.{field.name}"
        children = list(_children(value, where))
        # First of all, since a class passes for a function and its type says little.
        for child, path in children:
            if isinstance(child, type):
                raise ConfigError(
                    f"{path}: expected an object, received the class {child.__name__}; "
                    f"write {child.__name__}()."
                )
        hint = hints[field.name]
        if not _fits(value, hint):
            # A word where words were expected, or a lone object: forgotten are only the brackets.
            alone = f"; write ({value!r},)" if _fits((value,), hint) else ""
            alone = "; write it in brackets" if _fits([value], hint) and not alone else alone
            raise ConfigError(f"{where}: expected {words(hint)}, received {value!r}{alone}.")
        method = field.metadata.get("method")
        if method and not callable(getattr(value, method, None)):
            raise ConfigError(f"{where}: expected an object with {method}(), received {value!r}.")
        stated = field.metadata.get("bounds", [])
        if value is not None and not all(test(value) for _, test in stated):
            limits = " and ".join(limit for limit, _ in stated)
            share = value / 100
            percent = f"; write {share:g}" if value > 1 and all(t(share) for _, t in stated) else ""
            raise ConfigError(f"{where}: expected a number {limits}, received {value!r}{percent}.")
        for child, path in children:
            _check_tree(child, path)
    rules: Callable[[], Iterator[tuple[str, str]]] | None = getattr(node, "rules", None)
    for name, expected in rules() if rules else ():
        raise ConfigError(f"{at}.{name}: expected {expected}, received {getattr(node, name)!r}.")


def _children(value: Any, at: str) -> Iterator[tuple[Any, str]]:
    items = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
    for index, item in items:
        if dataclasses.is_dataclass(item):
            yield item, at if index is None else f"{at}[{index}]"


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple and isinstance(value, (tuple, list)):
        inner = args[:1] * len(value) if args[-1] is ... else args
        return len(inner) == len(value) and all(map(_fits, value, inner))
    if origin is list and isinstance(value, list):
        return all(_fits(item, args[0]) for item in value)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and not math.isinf(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Callable:
        return callable(value)
    return isinstance(value, origin or hint)


def words(hint: Any) -> str:
    """Return the type `hint` in a user's words."""
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "True or False"}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words, args))
    if hint is type(None):
        return "None"
    name = str(hint) if origin else getattr(hint, "__name__", str(hint))
    return plain.get(hint, name.replace("typing.", ""))


def plain(value: Any) -> Any:
    """Return `value` as plain JSON values, each spec with its class as `type`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "arguments": value.args, **value.keywords}
        return {"type": "functools.partial", **{k: plain(v) for k, v in parts.items()}}
    if isinstance(value, (str, int, float, type(None))):
        return value
    # Not its repr, which may hold an address: two runs of one config must be equal.
    named = value if hasattr(value, "__qualname__") else type(value)
    return {"type": f"{named.__module__}.{named.__qualname__}"}
