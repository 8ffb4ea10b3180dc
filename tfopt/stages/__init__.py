"""Stages: what is done to a model around the one training loop."""

from tfopt.stages.allocation import ERK, Global, Sensitivity, Uniform
from tfopt.stages.average import EMA, SWA
from tfopt.stages.base import Stage
from tfopt.stages.bias import CorrectBias
from tfopt.stages.centroids import Density, KMeansPlusPlus, Linear, Random
from tfopt.stages.cluster import Cluster
from tfopt.stages.distill import Teacher, Teachers
from tfopt.stages.equalize import Equalize
from tfopt.stages.exclude import First, Last
from tfopt.stages.importance import L1, BatchNormScale, Taylor
from tfopt.stages.objectives import AttentionScores, AttentionTransfer, Features, Logits, Objective
from tfopt.stages.one_shot import OneShotPrune
from tfopt.stages.optimizers import SGD, Adam, AdamW, Constant, Cosine
from tfopt.stages.patterns import Block, NofM, Unstructured
from tfopt.stages.prune import AtOnce, Polynomial, Prune
from tfopt.stages.quantize import Quantize
from tfopt.stages.shrink import Shrink

__all__ = [
    "Adam",
    "AdamW",
    "AtOnce",
    "AttentionScores",
    "AttentionTransfer",
    "BatchNormScale",
    "Block",
    "Cluster",
    "Constant",
    "CorrectBias",
    "Cosine",
    "Density",
    "EMA",
    "ERK",
    "Equalize",
    "Features",
    "First",
    "Global",
    "KMeansPlusPlus",
    "L1",
    "Last",
    "Linear",
    "Logits",
    "NofM",
    "Objective",
    "OneShotPrune",
    "Polynomial",
    "Prune",
    "Quantize",
    "Random",
    "SGD",
    "SWA",
    "Sensitivity",
    "Shrink",
    "Stage",
    "Taylor",
    "Teacher",
    "Teachers",
    "Uniform",
    "Unstructured",
]
