"""Stages: what is done to a model around the one training loop."""

from tfopt.stages.base import Stage
from tfopt.stages.distill import Teacher
from tfopt.stages.optimizers import SGD, Adam, AdamW, Constant, Cosine
from tfopt.stages.prune import AtOnce, Polynomial, Prune
from tfopt.stages.quantize import Quantize

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AtOnce",
    "Constant",
    "Cosine",
    "Polynomial",
    "Prune",
    "Quantize",
    "Stage",
    "Teacher",
]
