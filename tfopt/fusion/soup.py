"""Soups: the mean of the weights of several models of one shape, at the size of one."""

import dataclasses
import logging
from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.evaluate import logits
from tfopt.fusion.members import checked, load_all
from tfopt.graph import rebuilt
from tfopt.spec import bounded, spec
from tfopt.stages.average import has_statistics, recompute_statistics

_LOG = logging.getLogger(__name__)


@spec
class UniformSoup:
    """The mean of the weights of all `models` (Wortsman et al. 2022, "Model soups").

    `models` are as in Ensemble: of one architecture, and best trained from the same start, for
    what lies between two models of different starts is no good model. `data` is any source of
    data: BatchNormalization statistics are no mean of means, and are measured on its train
    split, augmented where training is, in batches of `batch_size`; without such layers it isn't
    needed. Zeros stay where all models have them.
    """

    models: tuple[Any, ...]
    data: Any = None
    batch_size: int = bounded(128, least=1)

    def __call__(self, spec: Any) -> "keras.Model":
        """Return the soup for data of `spec`; raises ConfigError where it doesn't fit."""
        return checked(self.load(), spec, "UniformSoup")

    def load(self) -> "keras.Model":
        """Return the soup; raises ConfigError where models differ in the shape of weights."""
        models = load_all(self.models, "UniformSoup")
        _check_alike(models)
        soup, *_ = models.values()
        if has_statistics(soup) and self.data is None:
            raise ConfigError(
                "UniformSoup.data: expected a source of data, since the models have "
                "BatchNormalization layers whose statistics must be measured, received None."
            )
        splits = self.data.load(self.batch_size) if self.data is not None else None
        return _cooked([model.get_weights() for model in models.values()], soup, splits)


@spec
class GreedySoup:
    """The mean of the weights of those `models` that make it better, tried best first.

    A model is taken in where the accuracy on the validation split of `data` is no lower with
    it (Wortsman et al. 2022, recipe 1), so that the soup is never below the best of `models`.
    For the rest see UniformSoup.
    """

    models: tuple[Any, ...]
    data: Any = dataclasses.field(metadata={"method": "load"})
    batch_size: int = bounded(128, least=1)

    def __call__(self, spec: Any) -> "keras.Model":
        """Return the soup for data of `spec`; raises ConfigError where it doesn't fit."""
        return checked(self.load(), spec, "GreedySoup")

    def load(self) -> "keras.Model":
        """Return the soup; raises ConfigError where models differ in the shape of weights."""
        models = load_all(self.models, "GreedySoup")
        _check_alike(models)
        splits = self.data.load(self.batch_size)
        ranked = sorted(models.values(), key=lambda model: -_accuracy(model, splits))
        weights = [model.get_weights() for model in ranked]
        chosen, best, reached = weights[:1], ranked[0], _accuracy(ranked[0], splits)
        for more in weights[1:]:
            soup = _cooked([*chosen, more], best, splits)
            accuracy = _accuracy(soup, splits)
            if accuracy >= reached:
                chosen, best, reached = [*chosen, more], soup, accuracy
        _LOG.info(
            "soup of %d of %d models: %.1f%% on the validation split.",
            *(len(chosen), len(weights), 100 * reached),
        )
        return best


def _check_alike(models: dict[str, Any]) -> None:
    shapes = {title: [tuple(w.shape) for w in model.weights] for title, model in models.items()}
    first, *others = shapes
    for other in others:
        if shapes[other] != shapes[first]:
            raise ConfigError(
                f"expected models of one shape, received {_told(shapes[other], shapes[first])} "
                f"in {other} and {_told(shapes[first], shapes[other])} in {first}; an Ensemble "
                "takes models of any shape."
            )


def _told(shapes: list, others: list) -> str:
    pairs = zip(shapes, others, strict=False)
    return next((str(one) for one, other in pairs if one != other), f"{len(shapes)} weights")


def _cooked(weights: list, like: "keras.Model", splits: Any) -> "keras.Model":
    soup = rebuilt(like)
    soup.set_weights([_mean(parts) for parts in zip(*weights, strict=True)])
    if splits is not None:
        recompute_statistics(soup, splits.augmented)
    return soup


def _mean(parts: tuple) -> np.ndarray:
    # A counter or a seed is no quantity to average.
    return np.mean(parts, axis=0) if np.issubdtype(parts[0].dtype, np.floating) else parts[0]


def _accuracy(model: "keras.Model", splits: Any) -> float:
    outputs, labels = logits(model, splits.validation)
    return float(np.mean(outputs.argmax(-1) == labels))
