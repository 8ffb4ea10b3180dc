"""The experiment of scaling_config.py on one replica with the kernels that several take."""

from tests.benchmarks import scaling_config


def get_config():
    experiment = scaling_config.get_config()
    experiment.model = scaling_config.unfused
    return experiment
