"""What the file that a run ends with may take. Standard library only."""

from tfopt.spec import bounded, spec


@spec
class Budget:
    """What a microcontroller has for the model, in bytes; 0 where there is no such limit.

    `flash` is for the file, `arena` for the activations, as TensorFlow Lite Micro plans them: its
    own structures, a few hundred bytes an operator, come on top.
    """

    flash: int = bounded(0, least=0)
    arena: int = bounded(0, least=0)

    def __bool__(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.flash or self.arena)
