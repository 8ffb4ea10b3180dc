"""What all built-in sources share."""

from collections.abc import Callable, Iterator

from tfopt.data.front_end import FrontEnd
from tfopt.data.normalisation import Normalisation
from tfopt.data.pipeline import Pair, from_arrays
from tfopt.data.splits import Splits
from tfopt.spec import bounded, spec


@spec
class Source:
    """The fields of a source of labelled examples; a subclass adds its own and a `load`.

    `validation` is the share of the training data that `seed` sets apart where the source has
    no validation split of its own; `seed` shuffles and augments too. `augment` is None or a
    function of (batch of examples, seed), such as Augment. `mean` and `std`, per channel of
    the source's values, replace those measured on the training data.
    """

    validation: float = bounded(0.1, above=0, below=1)
    seed: int = bounded(0, least=0)
    augment: Callable | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what was expected) for fields that don't fit together."""
        if (self.mean is None) != (self.std is None):
            yield "mean" if self.mean is None else "std", "numbers, since the other one is given"
        if self.std is not None and not all(value > 0 for value in self.std):
            yield "std", "numbers above 0"

    def splits(
        self,
        *,
        train: Pair,
        test: Pair,
        validation: Pair | None = None,
        class_names: tuple[str, ...],
        batch_size: int,
        front_end: FrontEnd | None = None,
    ) -> Splits:
        """Return the splits of these pairs (examples, labels) as the fields say."""
        normalisation = None
        if self.mean is not None and self.std is not None:
            normalisation = Normalisation(mean=tuple(self.mean), std=tuple(self.std))
        return from_arrays(
            train=train,
            test=test,
            validation=self.validation if validation is None else validation,
            class_names=class_names,
            batch_size=batch_size,
            seed=self.seed,
            augment=self.augment,
            normalisation=normalisation,
            front_end=front_end,
        )
