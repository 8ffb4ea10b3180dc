"""Print what is in a .tflite file: metadata, operators, kernels, zeros, codes, all tensors."""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfopt.facts import sparsity
from tfopt.isolated import Child
from tfopt.spec import plain
from tfopt.tables import table
from tfopt.tflite import flatbuffer, flatgraph, metadata
from tfopt.tflite.metadata_text import lines, numbers
from tfopt.tflite.opened import opened, readable

# Of a name.
_HALF = 30


def main(argv: list[str]) -> int:
    """Inspect the file that `argv` names; return 0."""
    parser = argparse.ArgumentParser(prog="tfopt inspect", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args(argv)
    with Child() as child:
        found = child.call(inspected, args.file)
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return 0


def inspected(path: Path) -> dict:
    """Return what the file `path` holds; raise ConfigError where it isn't a .tflite."""
    content, graph = opened(path)
    with readable(path):
        return inspect(content, graph)


def inspect(content: bytes, graph: flatgraph.Graph) -> dict:
    """Return what the .tflite `content`, read as `graph`, holds as plain JSON values.

    Sizes are in bytes. `tfopt` is what tfopt has put into it, `metadata` what is in the fields of
    TFLite Model Metadata; None where there are none. `tensors` are those of all subgraphs,
    constants and computed ones. Raises ValueError where metadata or attached files are damaged.
    """
    kernels = graph.kernels()
    counts = Counter((operator.kind, operator.precision) for operator in graph.operators)
    return {
        "bytes": len(content),
        "gzip_bytes": flatbuffer.gzip_size(content),
        "tfopt": plain(metadata.read(content)),
        "metadata": metadata.standard(content),
        "files": [{"name": name, "bytes": size} for name, size in metadata.sizes(content).items()],
        "signatures": list(graph.signatures),
        "inputs": [_tensor(tensor) for tensor in graph.inputs],
        "outputs": [_tensor(tensor) for tensor in graph.outputs],
        "operators": [
            {"type": kind, "precision": precision, "count": count}
            for (kind, precision), count in sorted(counts.items())
        ],
        "float_ops": [operator.label for operator in graph.with_precision("float")],
        "sparsity": sparsity(kernels),
        "kernels": [asdict(kernel) | {"shape": list(kernel.shape)} for kernel in kernels],
        "tensors": [_tensor(tensor) | {"axis": tensor.axis} for tensor in graph.tensors],
    }


def _tensor(tensor: flatgraph.Tensor) -> dict:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "bytes": tensor.bytes,
        "scales": list(tensor.scales),
        "zero_points": list(tensor.zero_points),
    }


def _text(found: dict) -> str:
    described = [
        *lines(found["tfopt"], found["metadata"], found["files"]),
        *(("signature", signature) for signature in found["signatures"]),
    ]
    operators = [(op["type"], op["precision"], f"{op['count']}") for op in found["operators"]]
    return "\n\n".join(
        [
            f"{found['bytes']:,} bytes, {found['gzip_bytes']:,} gzipped, "
            f"{found['sparsity']:.2%} of the kernels' values are zeros",
            table(described, ("metadata", ""), 2) if described else "metadata: none",
            _table_of_ends(found),
            table(operators, ("operator", "runs in", "count"), 2),
            f"stay float: {', '.join(found['float_ops']) or 'none'}",
            _table_of_kernels(found["kernels"]),
            _table_of_tensors(found["tensors"]),
        ]
    )


def _table_of_ends(found: dict) -> str:
    ends = [
        (
            *(way, _short(end["name"]), _shape(end), end["dtype"]),
            *(numbers(end["scales"]), numbers(end["zero_points"]), f"{end['bytes']:,}"),
        )
        for way in ("inputs", "outputs")
        for end in found[way]
    ]
    return table(ends, ("", "name", "shape", "type", "scale", "zero point", "bytes"), 4)


def _table_of_kernels(kernels: list[dict]) -> str:
    rows = [
        (
            kernel["name"],
            kernel["operator"],
            _shape(kernel),
            kernel["dtype"],
            f"{kernel['zeros']:,}",
            f"{kernel['size']:,}",
            f"{kernel['zeros'] / kernel['size']:.2%}",
            f"{kernel['codes']} ({kernel['codes_total']})",
            _range(kernel["scale_least"], kernel["scale_greatest"]),
            f"{kernel['bytes']:,}",
        )
        for kernel in kernels
    ]
    heads = (
        *("kernel", "operator", "shape", "type", "zeros", "size", "sparsity", "codes (all)"),
        *("scales", "bytes"),
    )
    return table(rows, heads, 4)


def _table_of_tensors(tensors: list[dict]) -> str:
    rows = [
        (
            *(_short(tensor["name"]), _shape(tensor), tensor["dtype"]),
            *(_ends(tensor["scales"]), _ends(tensor["zero_points"])),
            # Of one scale it says nothing.
            f"{tensor['axis']}" if len(tensor["scales"]) > 1 else "",
            f"{tensor['bytes']:,}",
        )
        for tensor in tensors
    ]
    heads = ("tensor", "shape", "type", "scales", "zero points", "axis", "bytes")
    return table(rows, heads, 3)


def _short(name: str) -> str:
    """Return a tensor's name so that the table stays one: of fused layers it has all of them."""
    return name if len(name) <= 2 * _HALF else f"{name[:_HALF]}…{name[-_HALF:]}"


def _shape(tensor: dict) -> str:
    return "×".join(map(str, tensor["shape"]))


def _range(least: Any, greatest: Any) -> str:
    if least is None:
        return "–"
    return f"{least:.3g}" if least == greatest else f"{least:.3g} to {greatest:.3g}"


def _ends(values: list) -> str:
    return _range(min(values, default=None), max(values, default=None))
