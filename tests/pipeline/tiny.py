"""The smallest experiment that has all three kinds of stage, as a config file."""

from tfopt.config import Experiment
from tfopt.data import Digits
from tfopt.limits import Budget
from tfopt.models import SmallCNN
from tfopt.stages import SGD, Features, Prune, Quantize, Stage, Teacher, Teachers


def get_config() -> Experiment:
    # A projection of 16 units to 32 learns as well.
    hints = Teacher(objective=Features(pairs=(("dense1", "flatten"),)), weight=0.01)
    teachers = Teachers(members=(Teacher(cached=True), hints))
    optimizer = SGD()
    return Experiment(
        name="tiny",
        data=Digits(),
        model=SmallCNN(filters=(8, 8), units=16),
        batch_size=64,
        min_agreement=0.9,
        budget=Budget(flash=2**16, arena=2**14),
        stages=[
            Stage(epochs=3, learning_rate=0.05, optimizer=optimizer, test_each_epoch=True),
            Prune(
                epochs=3,
                learning_rate=0.02,
                optimizer=optimizer,
                teacher=teachers,
                steps_per_execution=16,  # as of a long run
            ),
            Quantize(epochs=3, learning_rate=0.002, optimizer=optimizer, teacher=Teacher()),
        ],
    )
