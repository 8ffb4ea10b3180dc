"""Where the figures of a run are shown while it goes on; a file per service.

Stages know none of them: they are given one, and call what `Logger` has.
"""

from tfopt.loggers.base import Logger
from tfopt.loggers.opened import logged
from tfopt.loggers.wandb import WandB

__all__ = ["Logger", "WandB", "logged"]
