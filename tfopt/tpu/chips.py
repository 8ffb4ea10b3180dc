"""What each generation of TPU can do, as Google publishes it, and which slices are known."""

from dataclasses import dataclass

from tfopt.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip: its cores that each run a replica, and per chip its peak and its speeds.

    `flops` are those of bfloat16 a second, `hbm` bytes, `bandwidth` bytes a second between HBM
    and cores, `links` bytes a second to all other chips, both directions together.
    """

    cores: int
    flops: float
    hbm: float
    bandwidth: float
    links: float


# cloud.google.com/tpu/docs/{v3,v4,v5e,v5p,v6e}; v2 and the links of v2 to v4 from Jouppi et al.,
# "A Domain-Specific Supercomputer for Training Deep Neural Networks" (2020) and "TPU v4" (2023).
CHIPS = {
    "v2": Chip(2, 46e12, 16 * 2**30, 700e9, 248e9),
    "v3": Chip(2, 123e12, 32 * 2**30, 900e9, 328e9),
    "v4": Chip(1, 275e12, 32 * 2**30, 1200e9, 300e9),
    "v5e": Chip(1, 197e12, 16 * 2**30, 819e9, 400e9),
    "v5p": Chip(1, 459e12, 95 * 2**30, 2765e9, 1200e9),
    "v6e": Chip(1, 918e12, 32 * 2**30, 1640e9, 800e9),
}
TOPOLOGIES = (
    *("v2:2x2", "v2:4x4", "v3:2x2", "v3:4x4"),
    *("v4:2x2x1", "v4:2x2x2", "v5p:2x2x1", "v5p:2x2x2"),
    *(f"{chip}:{shape}" for chip in ("v5e", "v6e") for shape in ("1x1", "2x2", "2x4", "4x4")),
    *("v5e:4x8", "v6e:4x8"),
)


@dataclass(frozen=True, slots=True)
class Slice:
    """Chips of one kind that are linked, named as `v5e:2x4`."""

    name: str
    chip: Chip
    chips: int

    @property
    def replicas(self) -> int:
        """How many replicas it trains on."""
        return self.chips * self.chip.cores


def find(name: str) -> Slice:
    """Return the slice called `name`; raises ConfigError where there is none."""
    if name not in TOPOLOGIES:
        raise ConfigError(
            f"--topology: expected one of {', '.join(TOPOLOGIES)}, received {name!r}; "
            f"{nearest(name, TOPOLOGIES)}"
        )
    kind, _, shape = name.partition(":")
    chips = 1
    for length in shape.split("x"):
        chips *= int(length)
    return Slice(name, CHIPS[kind], chips)
