"""Which devices a run trains on, chosen at runtime."""

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import Any

from tfopt import cluster, preemption
from tfopt.compat import tf
from tfopt.config import Mesh
from tfopt.errors import ConfigError

_LOG = logging.getLogger(__name__)
_CHOSEN = "strategy %s -> %s, %d replica(s): %s."


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run trains on: all of it happens in the scope of `strategy`, over `replicas`.

    `mesh` is the dtensor.Mesh over which each model is spread, if any: to all that isn't, its
    devices are one.
    """

    strategy: "tf.distribute.Strategy"
    replicas: int
    mesh: Any = None


def choose(
    name: str,
    replicas: int = 0,
    *,
    timeout: float = 60,
    tpu: str = "local",
    mesh: Mesh | None = None,
) -> Devices:
    """Return the devices of the strategy called `name`, `replicas` of them (0: all).

    `auto` takes the hosts of TF_CONFIG if it is set, else a TPU if there is one, else all GPUs
    mirrored, else the one device there is. The hosts have `timeout` seconds to come together,
    a TPU at an address to answer. `tpu` is `local`, a name or an address.
    `mirrored` on a machine without GPUs splits the CPU into `replicas` logical devices, which
    must happen before TensorFlow has run anything; so does `mesh`, which lays models out over
    `mesh`. Raises ConfigError where the devices are not there.
    """
    tpus, gpus = tf.config.list_physical_devices("TPU"), tf.config.list_physical_devices("GPU")
    hosts = cluster.described()
    if hosts and hosts.are_several and name not in ("auto", "multi_worker"):
        raise ConfigError(
            f"config.strategy: expected 'multi_worker' or 'auto' on the {len(hosts.addresses)} "
            f"workers of TF_CONFIG, received {name!r}, with which each would write the same files; "
            "change it or unset TF_CONFIG."
        )
    if name == "mesh":
        return _meshed(mesh or Mesh())
    if name == "multi_worker" or (hosts and name == "auto"):
        strategy = _multi_worker(hosts, timeout)
        why = f"worker {hosts.index if hosts else 0} of TF_CONFIG"
    elif name == "tpu" or (name == "auto" and tpus):
        strategy = _tpu(tpu, bool(tpus), timeout)
        why = f"{strategy.num_replicas_in_sync} TPU cores of {tpu}"
    elif name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = _devices(replicas, "replicas")
        strategy, why = tf.distribute.MirroredStrategy(devices), f"devices {', '.join(devices)}"
    else:
        device = "/gpu:0" if gpus and name == "auto" else "/cpu:0"
        strategy = tf.distribute.OneDeviceStrategy(device)
        why = f"{len(gpus)} GPUs and no TPU found" if name == "auto" else "asked for"
    found = strategy.num_replicas_in_sync
    if replicas not in (0, found):
        raise ConfigError(
            f"config.replicas: expected at most the {found} devices of strategy "
            f"{name!r} here, received {replicas}; leave it 0 to use all."
        )
    _LOG.info(_CHOSEN, name, type(strategy).__name__, found, why)
    return Devices(strategy, found)


def _meshed(mesh: Mesh) -> Devices:
    # Its pass that joins the sums of all gradients puts what uses them behind what reads the
    # result: each step of an optimizer would take the gradients of the step before (TF 2.21).
    os.environ["DTENSOR_ENABLE_COMBINE_ALL_REDUCES_OPTIMIZATION"] = "0"
    devices = _devices(mesh.size, "mesh")
    sides = [("batch", mesh.batch), ("model", mesh.model)]
    laid = tf.experimental.dtensor.create_mesh(
        sides, devices=[name.strip("/").upper() for name in devices]
    )
    kind = f"{mesh.batch}×{mesh.model}"
    _LOG.info(_CHOSEN, "mesh", kind, mesh.batch, f"devices {', '.join(devices)}")
    return Devices(tf.distribute.get_strategy(), mesh.batch, laid)


def _multi_worker(hosts: cluster.Cluster | None, timeout: float) -> "tf.distribute.Strategy":
    if hosts is None:
        raise ConfigError(
            "config.strategy: expected TF_CONFIG in the environment for 'multi_worker', received "
            "none; set it on every host, or start local workers with `tfopt launch`."
        )
    hosts.gather(timeout)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise ConfigError(
            "TF_CONFIG: expected TensorFlow's own service at all addresses, received "
            f"{_first_line(error)!r}; see that nothing else listens there and start all again."
        ) from error
    except RuntimeError as error:
        raise ConfigError(
            "config.strategy: expected a process in which TensorFlow hasn't run yet for "
            f"'multi_worker', received one in which it has ({error}); start a new one."
        ) from error
    preemption.listen_again()
    return strategy


def _devices(count: int, field: str) -> list[str]:
    gpus = len(tf.config.list_physical_devices("GPU"))
    if not gpus:
        return logical_cpus(count, field)
    if field == "mesh":
        logical_cpus(count, field)  # DTensor feeds each GPU through a CPU of its own
    if count > gpus:
        raise ConfigError(
            f"config.{field}: expected at most the {gpus} GPUs here, received {count}; make it "
            "smaller."
        )
    return [f"/gpu:{index}" for index in range(count or gpus)]


def logical_cpus(count: int, field: str = "replicas") -> list[str]:
    """Return the names of `count` CPU devices (0: all there are), into which the CPU is split.

    Raises ConfigError that names `field` where TensorFlow runs already, started with fewer.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    if count > 1:
        wanted = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        # Once TensorFlow runs it refuses; what counts then is how the CPU was split before.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(cpu, wanted)
    found = len(tf.config.list_logical_devices("CPU"))
    if count > found:
        raise ConfigError(
            f"config.{field}: expected at most the {found} CPU devices that this process was "
            f"started with, received {count}; choose the strategy before TensorFlow runs."
        )
    return [f"/cpu:{index}" for index in range(count or found)]


def is_tpu(strategy: "tf.distribute.Strategy") -> bool:
    """Return whether the replicas of `strategy` are TPU cores."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def _tpu(name: str, found: bool, timeout: float) -> "tf.distribute.Strategy":
    if name.startswith("grpc://") and not cluster.answers(name.removeprefix("grpc://"), timeout):
        raise ConfigError(
            f"config.tpu: expected a TPU that answers within {timeout:g} seconds, received none at "
            f"{name}; see that it runs and that its port is open."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name == "local" and not found:
            raise ValueError("TensorFlow sees no TPU device")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # of a name whatever the cloud's client raises
        raise ConfigError(
            f"config.strategy: expected a TPU for 'tpu', received none called {name!r} "
            f"({_first_line(error)}); use 'auto', or see colab/tfopt_quickstart.ipynb for what a "
            "TPU runtime needs."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
