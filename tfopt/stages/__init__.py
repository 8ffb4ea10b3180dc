"""Stages: what is done to a model around the one training loop."""

from tfopt.stages.base import Stage
from tfopt.stages.distill import Saved, Teacher, Teachers
from tfopt.stages.objectives import (
    AttentionScores,
    AttentionTransfer,
    Features,
    Logits,
    Objective,
)
from tfopt.stages.optimizers import SGD, Adam, AdamW, Constant, Cosine
from tfopt.stages.prune import AtOnce, Polynomial, Prune
from tfopt.stages.quantize import Quantize

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AtOnce",
    "AttentionScores",
    "AttentionTransfer",
    "Constant",
    "Cosine",
    "Features",
    "Logits",
    "Objective",
    "Polynomial",
    "Prune",
    "Quantize",
    "Saved",
    "Stage",
    "Teacher",
    "Teachers",
]
