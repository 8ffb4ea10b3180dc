"""Several models made one: ensembles, and soups of weights."""

from tfopt.fusion.ensemble import Ensemble, MeanLogits, MeanProbabilities
from tfopt.fusion.soup import GreedySoup, UniformSoup

__all__ = ["Ensemble", "GreedySoup", "MeanLogits", "MeanProbabilities", "UniformSoup"]
