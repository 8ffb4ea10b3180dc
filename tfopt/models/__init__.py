"""Architectures: a model is any callable `(spec) -> keras.Model`, functional, flat, to logits."""

from collections.abc import Callable

from tfopt.models.dscnn import DSCNN
from tfopt.models.mobilenet import MobileNetV1, MobileNetV2
from tfopt.models.resnet import ResNet
from tfopt.models.saved import Saved
from tfopt.models.small import MLP, SmallCNN
from tfopt.models.transfer import ResNet50Transfer

# What the contract tests walk; a config may as well write its own, ResNet(depth=44, width=32).
PRESETS: dict[str, Callable] = {
    "mlp": MLP(),
    "small_cnn": SmallCNN(),
    "resnet8": ResNet(depth=8),
    "resnet20": ResNet(depth=20),
    "resnet56": ResNet(depth=56),
    "mobilenet_v1": MobileNetV1(),
    "mobilenet_v1_025": MobileNetV1(width=0.25),
    "mobilenet_v2": MobileNetV2(),
    "mobilenet_v2_035": MobileNetV2(width=0.35),
    "ds_cnn_s": DSCNN(),
    "ds_cnn_m": DSCNN(filters=172, stem_strides=(2, 1), first_stride=2),
    "ds_cnn_l": DSCNN(filters=276, depth=5, stem_strides=(2, 1), first_stride=2),
    "resnet50_transfer": ResNet50Transfer(weights="none"),
}

__all__ = [
    "DSCNN",
    "MLP",
    "PRESETS",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "ResNet50Transfer",
    "Saved",
    "SmallCNN",
]
