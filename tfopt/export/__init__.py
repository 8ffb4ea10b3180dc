"""Keras model -> TFLite: a variant is a spec that says how, an artifact is the bytes."""

from tfopt.export.artifact import Artifact
from tfopt.export.calibration import MSE, MinMax, Percentile
from tfopt.export.edge import GPTQ, Dynamic, EdgeQuantized, Octav, Static, WeightOnly
from tfopt.export.integers import Int8, Int16x8, sensible
from tfopt.export.variants import DynamicRange, Float16, Float32, Variant

__all__ = [
    "GPTQ",
    "MSE",
    "Artifact",
    "Dynamic",
    "DynamicRange",
    "EdgeQuantized",
    "Float16",
    "Float32",
    "Int8",
    "Int16x8",
    "MinMax",
    "Octav",
    "Percentile",
    "Static",
    "Variant",
    "WeightOnly",
    "sensible",
]
