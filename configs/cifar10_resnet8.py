"""CIFAR-10 from Keras's own loader and cache, on a ResNet-8.

tfopt --config=cifar10_resnet8

Time: 16 minutes on 2 CPU cores. Result: 76.6% in float32, 77.0% in int8 with 67% zeros, on a
copy of the images that had been through JPEG, which is harder; the original wasn't at hand.
"""

from tfopt.config import Experiment
from tfopt.data import Augment, Cifar10
from tfopt.models import ResNet
from tfopt.stages import SGD, Adam, Cosine, Prune, Quantize, Stage, Teacher


def get_config() -> Experiment:
    """Train for 12 epochs, prune to 67% for 8 and quantize for 2, with the first as teacher."""
    return Experiment(
        name="cifar10_resnet8",
        data=Cifar10(augment=Augment()),
        model=ResNet(depth=8, width=16),
        batch_size=128,
        stages=[
            Stage(
                epochs=12,
                learning_rate=0.1,
                schedule=Cosine(),
                optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=1e-4),
            ),
            Prune(
                epochs=8,
                sparsity=0.67,
                learning_rate=3e-3,
                schedule=Cosine(),
                optimizer=Adam(),
                teacher=Teacher(stage="train"),
                exclude=("stem*", "*shortcut*"),
            ),
            Quantize(
                epochs=2, learning_rate=3e-4, schedule=Cosine(), teacher=Teacher(stage="train")
            ),
        ],
    )
