"""CIFAR-10 on ResNet50 with ImageNet's weights, Dense 1024, Dense 512 and 10 logits.

tfopt --config=cifar10_resnet50

Time: some 10 minutes an epoch on 2 CPU cores, estimated from 70 steps; meant for a GPU or TPU.
Result: not measured yet, since ImageNet's weights were not at hand.

Prints `Epoch 1, Test Loss: 0.4613, Test Accuracy: 0.7820` after every epoch.
`--config.model.weights` is `imagenet`, `none` or a weights file.
"""

from tfopt.config import Experiment
from tfopt.data import Cifar10
from tfopt.models import ResNet50Transfer
from tfopt.stages import Adam, Stage


def get_config() -> Experiment:
    """Train all layers for 10 epochs with Adam at 1e-3 and batch 64."""
    return Experiment(
        name="cifar10_resnet50",
        # The means that ImageNet's weights were trained with, in RGB.
        data=Cifar10(mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0)),
        model=ResNet50Transfer(weights="imagenet"),
        batch_size=64,
        stages=[Stage(epochs=10, learning_rate=1e-3, optimizer=Adam(), test_each_epoch=True)],
    )
