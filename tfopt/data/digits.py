"""scikit-learn's handwritten digits, which need no file."""

import numpy as np

from tfopt.data.front_end import Image
from tfopt.data.partition import set_apart
from tfopt.data.source import Source
from tfopt.data.splits import Splits
from tfopt.spec import bounded, spec


@spec
class Digits(Source):
    """1,797 handwritten digits of 8 x 8 x 1 pixels, uint8 from 0 to 16, in 10 classes.

    `test` is the share of every class that `seed` sets apart as the test split.
    """

    test: float = bounded(0.2, above=0, below=1)

    def load(self, batch_size: int) -> Splits:
        """Return the splits of the digits; raises ConfigError where a share leaves too few."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = digits.images.astype(np.uint8)[..., None]
        rest, test = set_apart(digits.target, 10, self.test, self.seed)
        return self.splits(
            train=(images[rest], digits.target[rest]),
            test=(images[test], digits.target[test]),
            class_names=tuple("0123456789"),
            batch_size=batch_size,
            front_end=Image(peak=16),
        )
