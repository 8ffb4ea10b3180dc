"""Any folder of images: a folder per class under train/ and test/, JPEG or PNG.

tfopt --config=image_folder --config.data.path=DIR [--config.data.image_size="(64, 64)"]
Time: 6 minutes on 2 CPU cores for CIFAR-10 as 60,000 JPEG files, in 1.4 GB of memory.
Result: 65.7% in float32 (290,888 bytes gzipped), 65.8% in int8 with 77% zeros (34,815 bytes).
"""

from tfopt.config import Experiment
from tfopt.data import Augment, ImageFolder
from tfopt.models import ResNet
from tfopt.stages import Cosine, Prune, Quantize, Stage, Teacher


def get_config() -> Experiment:
    """Train a ResNet-8 for 3 epochs, prune to 77% and quantize, with the first as teacher."""
    teacher = Teacher(stage="train")
    return Experiment(
        name="image_folder",
        data=ImageFolder(augment=Augment()),
        model=ResNet(depth=8, width=16),
        batch_size=128,
        stages=[
            Stage(epochs=3, learning_rate=5e-3, schedule=Cosine()),
            Prune(
                epochs=3,
                sparsity=0.77,
                learning_rate=3e-3,
                schedule=Cosine(),
                teacher=teacher,
                exclude=("stem*", "*shortcut*"),
            ),
            Quantize(epochs=1, learning_rate=3e-4, schedule=Cosine(), teacher=teacher),
        ],
    )
