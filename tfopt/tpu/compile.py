"""Compile StableHLO for a TPU with jax and libtpu, without TensorFlow and without a TPU.

python -m tfopt.tpu.compile TOPOLOGY REPLICAS FILE.mlir

Prints one JSON object a file: what the compiler says of the program, or the `error` by which it
refused it. A process of its own, since libtpu and TensorFlow don't share one.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it takes no TPU that others could want
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Lazily up to the operator, as the type of a tuple has comments with = in it.
_REDUCE = re.compile(r"^ *(?:ROOT )?%?[\w.-]+ = (.*?) all-reduce(?:-start)?\(", re.MULTILINE)
_ARRAY = re.compile(r"(\w+?)(\d+)\[([\d,]*)\]")


def main(argv: list[str]) -> int:
    """Compile the files that `argv` names; return 0."""
    topology, replicas, *files = argv
    for file in files:
        print(json.dumps(compiled(Path(file).read_text(), topology, int(replicas))), flush=True)
    return 0


def devices(topology: str) -> list:
    """Return the devices of `topology`, such as v5e:2x4; raises RuntimeError without it."""
    from jax.experimental import topologies

    single = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **single)
    return list(described.devices)


def compiled(text: str, topology: str, replicas: int) -> dict[str, Any]:
    """Return what the compiler says of the program `text` on `replicas` devices; bytes, FLOPs."""
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    try:
        chosen = devices(topology)[:replicas]
        client = chosen[0].client
        options = compiler.get_compile_options(
            num_replicas=replicas,
            num_partitions=1,
            device_assignment=np.array([[device.id] for device in chosen]),
            backend=client,
        )
        with mlir.make_ir_context():
            module = ir.Module.parse(text)
            _without_copies(module, ir)
            places = xla_client.DeviceList(tuple(chosen))
            program = client.compile(module, executable_devices=places, compile_options=options)
        return _figures(program)
    except Exception as error:  # jaxlib's own kinds are no public API
        return {"error": str(error)[:2000]}


def _without_copies(module: Any, ir: Any) -> None:
    """Erase the copies that TensorFlow writes, which the compiler doesn't know."""
    copies = []

    def look(operation: Any) -> Any:
        if operation.operation.name == "mhlo.copy":
            copies.append(operation.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(look)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()


def _figures(program: Any) -> dict[str, Any]:
    memory, cost = program.get_compiled_memory_stats(), program.cost_analysis()
    cost = cost[0] if isinstance(cost, (list, tuple)) else cost
    text = program.hlo_modules()[0].to_string()
    reduced = _REDUCE.findall(text)
    return {
        "flops": cost.get("flops", 0.0),
        "bytes": cost.get("bytes accessed", 0.0),
        "arguments_bytes": memory.argument_size_in_bytes,
        "outputs_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "program_bytes": memory.generated_code_size_in_bytes,
        "all_reduces": len(reduced),
        "all_reduce_bytes": sum(map(_size, reduced)),
    }


def _size(shapes: str) -> int:
    """Return the bytes of the arrays in an HLO type, such as (f32[16]{0}, bf16[3,3]{1,0})."""
    total = 0
    for _, bits, axes in _ARRAY.findall(shapes):
        count = 1
        for axis in filter(None, axes.split(",")):
            count *= int(axis)
        total += count * int(bits) // 8
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
