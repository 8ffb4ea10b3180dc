"""Stages: what is done to a model around the one training loop."""

from tfopt.stages.base import Stage
from tfopt.stages.distill import Teacher
from tfopt.stages.importance import L1, BatchNormScale, Taylor
from tfopt.stages.optimizers import SGD, Adam, AdamW, Constant, Cosine
from tfopt.stages.prune import AtOnce, Polynomial, Prune
from tfopt.stages.quantize import Quantize
from tfopt.stages.shrink import Shrink

__all__ = [
    "L1",
    "SGD",
    "Adam",
    "AdamW",
    "AtOnce",
    "BatchNormScale",
    "Constant",
    "Cosine",
    "Polynomial",
    "Prune",
    "Quantize",
    "Shrink",
    "Stage",
    "Taylor",
    "Teacher",
]
