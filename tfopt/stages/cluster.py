"""Weight sharing: each kernel is made of a few values only (Han et al. 2015)."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from tfopt.compat import keras
from tfopt.errors import ConfigError, RunError
from tfopt.facts import Facts, Kernel, channels, from_channels, kernel_variables, measure
from tfopt.graph import rebuilt
from tfopt.spec import bounded, having, spec
from tfopt.stages.base import Stage
from tfopt.stages.centroids import KMeansPlusPlus, shared
from tfopt.stages.exclude import check_exclude, exclude_rules, excluded
from tfopt.stages.hold import is_affine, is_shared, is_sparse

_LOG = logging.getLogger(__name__)


@spec
class Cluster(Stage):
    """Let the weights of each kernel share `clusters` values, and train these values.

    The values are those of k-means, begun as `initialization` says, over the whole kernel or
    over each output channel of it (`per_channel`). In a kernel that comes with zeros, 0 is one
    of them and stays. Which weight has which value is decided before the first step; a step
    moves a value by the mean over its weights (Han et al. 2015, "Deep Compression"), which is
    little: hence a learning rate above that of other stages. Kernels with fewer than two
    weights, zeros aside, for each value, and layers in `exclude` (as in Prune), are left as they
    are: there is little to share. Prune before: a pruned kernel of shared values has 0 as one
    value more. A stage of 0 epochs measures the statistics of BatchNormalization anew, which at 8
    clusters gives 61.2% instead of 48.3% on the model below.

    tfmot's `cluster_weights` has the same initialisations and isn't used. It leaves the model
    that it is given broken, fails on 1x1 convolutions with quantization-aware training, and
    with k-means++ in float16. It moves weights between clusters as it trains; that is worth
    nothing: 4 clusters and two epochs on a ResNet-8 of 67.8% on CIFAR-10 gave 64.5% here
    (SGD, 0.1), 64.0% (Adam, 0.01) and 63.8% there; 16 clusters 67.5% and 67.3%.
    """

    name: str = "cluster"
    learning_rate: float = bounded(1e-2, above=0)
    clusters: int = bounded(16, least=2, most=256)
    initialization: Any = having("centroids", KMeansPlusPlus)
    per_channel: bool = False
    exclude: tuple[Any, ...] = ()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what is impossible."""
        yield from Stage.rules(self)
        yield from exclude_rules(self)

    @property
    def renews_statistics(self) -> bool:
        """Whether BatchNormalization must measure anew: without training, of other weights."""
        return not self.epochs or self.average is not None

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return a copy of `model` whose kernels share values and go on doing so in training."""
        del steps, samples
        clustered = rebuilt(model)
        kernels = measure(clustered).kernels
        check_exclude(self, kernels)
        covered = {kernel.key: kernel for kernel in self._covered(kernels)}
        if not covered:
            raise ConfigError(
                f"stage {self.name!r}: expected a kernel with at least 2 weights for each of "
                f"{self.clusters} clusters, received {len(kernels)} kernels of at most "
                f"{max(map(self._among, kernels), default=0)} weights; ask for fewer "
                "clusters, shorten exclude, or set per_channel=False."
            )
        variables = kernel_variables(clustered)
        for name, kernel in covered.items():
            variables[name].assign(self._values(variables[name].numpy(), kernel))
        return clustered

    def check(self, before: Facts, after: Facts) -> None:
        """Raise RunError where a kernel has more values than clusters."""
        del before
        covered = self._covered(after.kernels)
        if left := [kernel.key for kernel in after.kernels if kernel not in covered]:
            _LOG.info("stage %s left as they were: %s.", self.name, ", ".join(left))
        for kernel in covered:
            found = kernel.distinct if self.per_channel else kernel.distinct_total
            if found > self.clusters:
                raise RunError(
                    f"stage {self.name!r}: expected at most {self.clusters} values in the kernel "
                    f"of layer {kernel.layer!r}, measured {found}; something wrote to the "
                    "weights after the optimizer's step."
                )

    def _values(self, kernel: Any, facts: Kernel) -> Any:
        sparse = is_sparse(facts.zeros, facts.size)
        inner = facts.inner_type
        columns = channels(kernel, facts.name, inner) if self.per_channel else kernel.reshape(-1, 1)
        found = shared(columns, self.clusters, self.initialization, sparse=sparse)
        shape = kernel.shape
        return from_channels(found, shape, inner) if self.per_channel else found.reshape(shape)

    def _covered(self, kernels: Sequence[Kernel]) -> list[Kernel]:
        left = excluded(self, kernels)
        return [
            kernel
            for kernel in kernels
            if kernel.layer not in left
            and not is_affine(kernel)
            and is_shared(self._values_of(kernel), self._among(kernel))
        ]

    def _values_of(self, kernel: Kernel) -> int:
        """Return how many values there will be beside 0."""
        return self.clusters - is_sparse(kernel.zeros, kernel.size)

    def _among(self, kernel: Kernel) -> int:
        """Return the number of weights that share one set of values, zeros aside."""
        return kernel.channel_nonzeros if self.per_channel else kernel.nonzeros
