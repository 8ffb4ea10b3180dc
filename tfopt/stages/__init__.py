"""Stages: what is done to a model around the one training loop."""

from tfopt.stages.allocation import ERK, Global, Sensitivity, Uniform
from tfopt.stages.base import Stage
from tfopt.stages.distill import Teacher
from tfopt.stages.one_shot import OneShotPrune
from tfopt.stages.optimizers import SGD, Adam, AdamW, Constant, Cosine
from tfopt.stages.patterns import Block, NofM, Unstructured
from tfopt.stages.prune import AtOnce, Polynomial, Prune
from tfopt.stages.quantize import Quantize
from tfopt.stages.sparsify import First, Last

__all__ = [
    "ERK",
    "SGD",
    "Adam",
    "AdamW",
    "AtOnce",
    "Block",
    "Constant",
    "Cosine",
    "First",
    "Global",
    "Last",
    "NofM",
    "OneShotPrune",
    "Polynomial",
    "Prune",
    "Quantize",
    "Sensitivity",
    "Stage",
    "Teacher",
    "Uniform",
    "Unstructured",
]
