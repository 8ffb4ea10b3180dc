"""Stages: what is done to a model around the one training loop."""

from tfopt.stages.allocation import ERK, Global, Sensitivity, Uniform
from tfopt.stages.base import Stage
from tfopt.stages.bias import CorrectBias
from tfopt.stages.distill import Teacher, Teachers
from tfopt.stages.equalize import Equalize
from tfopt.stages.objectives import AttentionScores, AttentionTransfer, Features, Logits, Objective
from tfopt.stages.one_shot import OneShotPrune
from tfopt.stages.optimizers import SGD, Adam, AdamW, Constant, Cosine
from tfopt.stages.patterns import Block, NofM, Unstructured
from tfopt.stages.prune import AtOnce, Polynomial, Prune
from tfopt.stages.quantize import Quantize
from tfopt.stages.sparsify import First, Last

__all__ = [
    "Adam",
    "AdamW",
    "AtOnce",
    "AttentionScores",
    "AttentionTransfer",
    "Block",
    "Constant",
    "CorrectBias",
    "Cosine",
    "ERK",
    "Equalize",
    "Features",
    "First",
    "Global",
    "Last",
    "Logits",
    "NofM",
    "Objective",
    "OneShotPrune",
    "Polynomial",
    "Prune",
    "Quantize",
    "SGD",
    "Sensitivity",
    "Stage",
    "Teacher",
    "Teachers",
    "Uniform",
    "Unstructured",
]
