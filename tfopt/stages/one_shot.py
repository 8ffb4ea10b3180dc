"""Pruning without training: layer by layer, the weights that stay make up for the others."""

import logging
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from tfopt.compat import keras, tf
from tfopt.facts import Facts, Kernel, measure
from tfopt.graph import rebuilt
from tfopt.spec import bounded, having, spec
from tfopt.stages.allocation import Global
from tfopt.stages.patterns import folded, unfolded
from tfopt.stages.sparse_gpt import hessian, reconstructed
from tfopt.stages.sparsify import Sparsify

_LOG = logging.getLogger(__name__)
# A share of weights that are left dense which the others feel.
_MUCH = 0.1
# Values that are unrolled for a Hessian at a time: 128 MB.
_VALUES = 2**25


@spec
class OneShotPrune(Sparsify):
    """Prune each layer at once and correct its other weights by `batches` batches of data.

    For each Conv1D, Conv2D and Dense in turn, the inputs that it gets in the model pruned so far
    say how its weights make up for each other (see `sparse_gpt.reconstructed`, which
    `dampening` goes to); all other kernels stay dense. BatchNormalization then measures its
    statistics anew. Data is streamed, once for each layer, and one layer's Hessian held. With
    `epochs` above 0 the result is trained with its zeros kept.
    """

    prunes: ClassVar[tuple[str, ...]] = ("Conv1D", "Conv2D", "Dense")
    needs_trained: ClassVar[bool] = True

    name: str = "one_shot"
    epochs: int = bounded(0, least=0)
    # With Uniform and no training the thin layers are cut through at half of this.
    allocation: Any = having("scores", Global)
    batches: int = bounded(16, least=1)
    dampening: float = bounded(0.01, above=0)

    @property
    def renews_statistics(self) -> bool:
        """Whether BatchNormalization must measure anew: what is pruned gives other activations."""
        return True

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return a pruned and corrected copy of `model`."""
        del steps
        pruned = rebuilt(model)
        examples = samples.take(self.batches)
        allotted = self.zeros(pruned, samples)
        self._warn_of_dense(measure(pruned), allotted)
        for kernel, zeros in allotted.items():
            if zeros:
                layer = pruned.get_layer(kernel.layer)
                self._prune(layer, zeros, _inputs(pruned, layer, examples))
        return pruned

    def finish(self, model: "keras.Model") -> "keras.Model":
        """Return `model`, whose zeros are where its pattern has them."""
        self.check_pattern(model)
        return model

    def _warn_of_dense(self, facts: Facts, zeros: dict[Kernel, int]) -> None:
        others = [kernel for kernel in facts.kernels if kernel.layer_type not in self.prunes]
        dense, total = (sum(k.size for k in kernels) for kernels in (others, facts.kernels))
        if dense > _MUCH * total:
            _LOG.warning(
                "stage %s: %s stay dense, %.0f%% of all weights, since only %s are corrected; of "
                "these %.0f%% go. Prune(...), which trains, takes all.",
                self.name,
                ", ".join(dict.fromkeys(kernel.layer for kernel in others)),
                100 * dense / total,
                ", ".join(self.prunes),
                100 * sum(zeros.values()) / sum(kernel.size for kernel in zeros),
            )

    def _prune(self, layer: Any, zeros: int, inputs: Iterator) -> None:
        kernel, layer_type = layer.kernel.numpy(), type(layer).__name__
        curvature = hessian(layer, inputs)
        shares = np.diff(np.round(np.linspace(0, zeros, len(curvature) + 1)).astype(int))
        groups = np.split(folded(kernel, layer_type).numpy(), len(curvature), axis=-1)
        found = [
            reconstructed(weights, second, self.pattern, share, self.dampening)
            for weights, second, share in zip(groups, curvature, shares, strict=True)
        ]
        layer.kernel.assign(unfolded(np.concatenate(found, axis=-1), kernel.shape, layer_type))


def _inputs(model: Any, layer: Any, samples: "tf.data.Dataset") -> Iterator:
    """Yield what `layer` gets at each of its places in `model`, in batches that fit in memory."""
    tensors = [tensor for node in layer.inbound_nodes for tensor in node.keras_inputs]
    probe = keras.Model(model.inputs, tensors)
    places = math.prod(layer.get_output_at(0).shape[1:-1])
    unrolled = places * math.prod(layer.kernel.shape[:-1]) * getattr(layer, "groups", 1)
    batches = samples.map(lambda examples, *_: examples).rebatch(max(_VALUES // unrolled, 1))
    for examples in batches:
        yield from tf.nest.flatten(probe(examples, training=False))
