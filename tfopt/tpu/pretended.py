"""A TPUStrategy on a machine without a TPU: enough to trace a step, never to execute it."""

from typing import Any

import numpy as np

from tfopt.compat import tf, tf_tpu_metadata

_DEVICE = "/job:localhost/replica:0/task:0/device"


def pretended(replicas: int) -> "tf.distribute.TPUStrategy":
    """Return a TPUStrategy of `replicas` cores, whose variables are on as many logical CPUs.

    There must be as many, see `strategy.logical_cpus`.
    """
    strategy = tf.distribute.TPUStrategy(_resolver(replicas))
    places = [[f"{_DEVICE}:CPU:{core}"] for core in range(replicas)]
    strategy.extended._tpu_devices = np.array(places, dtype=object)
    return strategy


def _resolver(cores: int) -> Any:
    class Resolver(tf.distribute.cluster_resolver.ClusterResolver):
        """One host with `cores` cores that nobody has."""

        environment, task_type, task_id = "", None, None

        def get_tpu_system_metadata(self) -> Any:
            devices = [_Core(f"{_DEVICE}:TPU:{core}") for core in range(cores)]
            return tf_tpu_metadata.TPUSystemMetadata(
                num_cores=cores,
                num_hosts=1,
                num_of_cores_per_host=cores,
                topology=None,
                devices=devices,
            )

        def cluster_spec(self) -> Any:
            return tf.train.ClusterSpec({})

        def master(self, *_: Any, **__: Any) -> str:
            return ""

        def num_accelerators(self, *_: Any, **__: Any) -> dict:
            return {"TPU": cores}

    return Resolver()


class _Core:
    device_type, memory_limit_bytes, incarnation = "TPU", 0, 0

    def __init__(self, name: str) -> None:
        self.name = name
