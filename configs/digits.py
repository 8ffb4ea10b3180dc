"""Handwritten digits: the demo.

tfopt --config=digits

Time: 50 seconds on 2 CPU cores. Result: 98.3% in float32 (290,355 bytes gzipped), 98.1% in int8
with 80% zeros (33,186 bytes gzipped), which fits a small microcontroller and comes as C array too.
"""

from tfopt.config import Experiment
from tfopt.data import Digits
from tfopt.limits import Budget
from tfopt.models import ResNet
from tfopt.stages import Cosine, Prune, Quantize, Stage, Teacher


def get_config() -> Experiment:
    """Train, prune to 80% and quantize a small residual network, the last two with a teacher."""
    return Experiment(
        name="digits",
        data=Digits(),
        model=ResNet(depth=8, width=16),
        batch_size=32,
        # Of a small microcontroller: the int8 file takes 97 kB and 3 kB.
        budget=Budget(flash=128 * 1024, arena=8 * 1024),
        stages=[
            Stage(name="train", epochs=15, learning_rate=3e-3, schedule=Cosine()),
            Prune(
                name="prune",
                epochs=12,
                sparsity=0.8,
                learning_rate=2e-3,
                schedule=Cosine(),
                teacher=Teacher(stage="train"),
            ),
            Quantize(name="quantize", epochs=4, learning_rate=3e-4, teacher=Teacher(stage="train")),
        ],
    )
