"""Quantization-aware training: the stage, and how it rewrites a model."""

from tfopt.stages.quantize.stage import Bits, Float, Quantize

__all__ = ["Bits", "Float", "Quantize"]
