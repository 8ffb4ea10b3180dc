"""Optimizers and learning-rate schedules as specs."""

from typing import Any

from tfopt.compat import keras
from tfopt.spec import bounded, spec

# A decayed bias or normalisation parameter regularises nothing and costs accuracy.
_NOT_DECAYED = ["bias", "gamma", "beta"]
_WARMUP = 0.05


@spec
class Constant:
    """The stage's learning rate from the first step to the last."""

    def over(self, peak: float, steps: int) -> Any:
        """Return the learning rate of a stage of `steps` steps."""
        del steps
        return peak


@spec
class Cosine:
    """Linear warm-up to the stage's learning rate, then half a cosine down to `floor` of it.

    `warmup` is a share of the stage's steps. Source: Loshchilov and Hutter 2016,
    "SGDR: Stochastic Gradient Descent with Warm Restarts", without restarts.
    """

    warmup: float = bounded(0.05, least=0, below=1)
    floor: float = bounded(0.0, least=0, below=1)

    def over(self, peak: float, steps: int) -> Any:
        """Return the schedule over a stage of `steps` steps."""
        warmup = round(self.warmup * steps)
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
            decay_steps=max(steps - warmup, 1),
            alpha=self.floor,
        )


def scaled(rate: Any, scale: float, steps: int) -> Any:
    """Return `rate`, which is `scale` times the usual, warmed up from the usual one on.

    That takes the first 5% of `steps`. Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD",
    sections 2.1 and 2.2: linear scaling with gradual warm-up.
    """
    if scale <= 1:
        return rate
    # Deferred, since its class is Keras's: configs must not load TensorFlow.
    from tfopt.stages.warmup import Warmup

    return Warmup(rate, scale, max(round(_WARMUP * steps), 1))


@spec
class SGD:
    """Stochastic gradient descent with (Nesterov) momentum and decoupled weight decay."""

    momentum: float = bounded(0.9, least=0, below=1)
    nesterov: bool = True
    weight_decay: float = bounded(0.0, least=0)

    def build(self, learning_rate: Any, **options: Any) -> "keras.optimizers.Optimizer":
        """Return the Keras optimizer; `options` are for its class, as `mesh`."""
        return _built(
            keras.optimizers.SGD,
            learning_rate,
            self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
            **options,
        )


@spec
class Adam:
    """Adam (Kingma and Ba 2014)."""

    beta_1: float = bounded(0.9, least=0, below=1)
    beta_2: float = bounded(0.999, least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)

    def build(self, learning_rate: Any, **options: Any) -> "keras.optimizers.Optimizer":
        """Return the Keras optimizer; `options` are for its class, as `mesh`."""
        return _built(keras.optimizers.Adam, learning_rate, 0.0, **_adam(self), **options)


@spec
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017)."""

    weight_decay: float = bounded(4e-3, least=0)
    beta_1: float = bounded(0.9, least=0, below=1)
    beta_2: float = bounded(0.999, least=0, below=1)
    epsilon: float = bounded(1e-7, above=0)

    def build(self, learning_rate: Any, **options: Any) -> "keras.optimizers.Optimizer":
        """Return the Keras optimizer; `options` are for its class, as `mesh`."""
        return _built(
            keras.optimizers.AdamW, learning_rate, self.weight_decay, **_adam(self), **options
        )


def _adam(optimizer: Any) -> dict[str, float]:
    return {name: getattr(optimizer, name) for name in ("beta_1", "beta_2", "epsilon")}


def _built(
    make: Any, learning_rate: Any, weight_decay: float, **options: Any
) -> "keras.optimizers.Optimizer":
    # Keras compiles the update with XLA where it finds a GPU; with tfmot's merge_call on
    # several replicas that fails.
    optimizer = make(learning_rate, weight_decay=weight_decay or None, jit_compile=False, **options)
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer
