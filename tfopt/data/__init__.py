"""Data sets: any object with `load(batch_size) -> Splits`.

A new source is a class whose `load` gets its arrays and hands them to `from_arrays`.
"""

from tfopt.data.arrays import Arrays
from tfopt.data.augment import Augment
from tfopt.data.cifar10 import Cifar10
from tfopt.data.digits import Digits
from tfopt.data.front_end import Image, LogMel, Tokens, Waveform
from tfopt.data.image_folder import ImageFolder
from tfopt.data.normalisation import Normalisation
from tfopt.data.pipeline import from_arrays
from tfopt.data.source import Source
from tfopt.data.splits import Spec, Splits

__all__ = [
    "Arrays",
    "Augment",
    "Cifar10",
    "Digits",
    "Image",
    "ImageFolder",
    "LogMel",
    "Normalisation",
    "Source",
    "Spec",
    "Splits",
    "Tokens",
    "Waveform",
    "from_arrays",
]
