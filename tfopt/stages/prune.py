"""Magnitude pruning (Zhu and Gupta 2017) with tfmot, in shares of the stage."""

from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

from tfopt.compat import keras, tf, tfmot
from tfopt.graph import copied, rebuilt
from tfopt.spec import bounded, having, spec
from tfopt.stages.sparsify import Sparsify

_PRUNED = (
    "Bidirectional",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "EinsumDense",
    "Embedding",
    "GRU",
    "LSTM",
    "MultiHeadAttention",
    "SeparableConv1D",
    "SeparableConv2D",
    "SimpleRNN",
    "TimeDistributed",
)
_UPDATES = 100


def _with_kernels(layer: Any) -> Any:
    """Return a copy of `layer` that has kernels before its first call, for their masks."""
    copy = copied(layer)
    if isinstance(layer, keras.layers.MultiHeadAttention):  # the others are built by a shape
        shapes = layer._query_shape, layer._value_shape, layer._key_shape
        copy(*(tf.zeros([size or 1 for size in shape]) for shape in shapes))
    return copy


@spec
class Polynomial:
    """Sparsity grows from 0 at `begin` to the asked one at `end`, both shares of the stage."""

    begin: float = bounded(0.0, least=0, below=1)
    end: float = bounded(0.6, above=0, most=1)
    power: float = bounded(3.0, above=0)

    def rules(self) -> Any:
        """Yield what is impossible."""
        if self.begin >= self.end:
            yield "end", f"a share of the stage after begin ({self.begin:g})"

    def over(self, steps: int, target: float) -> Any:
        """Return tfmot's schedule to sparsity `target` for a stage of `steps` steps."""
        begin, span = _whole(self.begin, steps), round((self.end - self.begin) * steps)
        frequency = max(span // _UPDATES, 1)
        # tfmot updates masks at begin + n * frequency only: an end between two of these
        # would never be reached.
        end = min(begin + max(span // frequency, 1) * frequency, steps)
        frequency = min(frequency, end - begin)
        power: Any = self.power
        return tfmot.sparsity.keras.PolynomialDecay(
            0.0, target, begin, end, power=power, frequency=frequency
        )


@spec
class AtOnce:
    """The asked sparsity from `begin` on, a share of the stage; masks move until its end."""

    begin: float = bounded(0.0, least=0, below=1)

    def over(self, steps: int, target: float) -> Any:
        """Return tfmot's schedule to sparsity `target` for a stage of `steps` steps."""
        frequency = max(steps // _UPDATES, 1)
        return tfmot.sparsity.keras.ConstantSparsity(
            target, _whole(self.begin, steps), frequency=frequency
        )


def _whole(share: float, steps: int) -> int:
    return min(round(share * steps), steps - 1)


@spec
class Prune(Sparsify):
    """Set the smallest weights of each layer to zero while training, more and more of them.

    The masks are tfmot's; they follow `growth` in every pattern, may move until its end, and
    are part of the checkpoints. Convolutions, Dense, Embedding, attention and recurrent layers
    are pruned, but EinsumDense by blocks or N:M; depthwise kernels stay dense.
    """

    prunes: ClassVar[tuple[str, ...]] = _PRUNED

    name: str = "prune"
    epochs: int = bounded(1, least=1)
    growth: Any = having("over", Polynomial)

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return `model` with a pruning wrapper around each layer that is pruned."""
        # Deferred, since a subclass of a Keras layer would load TensorFlow with every config.
        from tfopt.stages.masked import Masked

        flat = rebuilt(model)
        zeros = self.zeros(flat, samples)
        shares = defaultdict(dict)
        for kernel, count in zeros.items():
            if count:
                shares[kernel.layer][kernel.name] = count / kernel.size

        def wrap(layer: "keras.layers.Layer") -> "keras.layers.Layer":
            if layer.name not in shares:
                return copied(layer)
            own = shares[layer.name]
            schedule = self.growth.over(steps, max(own.values()))
            return Masked(_with_kernels(layer), schedule, self.pattern, own)

        return rebuilt(flat, wrap)

    def callbacks(self, log_dir: Path) -> list:
        """Return tfmot's step counter, which also masks the weights at the end of an epoch."""
        del log_dir
        return [tfmot.sparsity.keras.UpdatePruningStep()]

    def rehearsed(self, model: "keras.Model") -> "keras.Model":
        """Return the prepared `model` finished, with the zeros that training would bring."""
        from tfopt.stages.masked import Masked

        for layer in model.layers:
            if isinstance(layer, Masked):
                layer.mask_as_at_the_end()
        return self.finish(model)

    def finish(self, model: "keras.Model") -> "keras.Model":
        """Return the model without pruning wrappers."""
        from tfopt.stages.masked import Masked

        plain = rebuilt(
            model, lambda layer: copied(layer.layer if isinstance(layer, Masked) else layer)
        )
        self.check_pattern(plain)
        return plain
