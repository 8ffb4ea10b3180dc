"""Print what is in a .tflite file: inputs, operators, kernels, zeros, codes, sizes."""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tfopt import flatbuffer
from tfopt.facts import sparsity
from tfopt.opened import opened
from tfopt.tables import table


def main(argv: list[str]) -> int:
    """Inspect the file that `argv` names; return 0."""
    parser = argparse.ArgumentParser(prog="tfopt inspect", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args(argv)
    found = inspect(*opened(args.file))
    print(json.dumps(found, indent=2) if args.json else _text(found))
    return 0


def inspect(content: bytes, graph: flatbuffer.Graph) -> dict:
    """Return what the .tflite `content`, read as `graph`, holds as plain JSON values.

    Sizes are in bytes.
    """
    kernels = graph.kernels()
    counts = Counter((operator.kind, operator.precision) for operator in graph.operators)
    return {
        "bytes": len(content),
        "gzip_bytes": flatbuffer.gzip_size(content),
        "inputs": [_tensor(tensor) for tensor in graph.inputs],
        "outputs": [_tensor(tensor) for tensor in graph.outputs],
        "operators": [
            {"type": kind, "precision": precision, "count": count}
            for (kind, precision), count in sorted(counts.items())
        ],
        "float_ops": [operator.label for operator in graph.with_precision("float")],
        "sparsity": sparsity(kernels),
        "kernels": [asdict(kernel) | {"shape": list(kernel.shape)} for kernel in kernels],
    }


def _tensor(tensor: flatbuffer.Tensor) -> dict:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scales": list(tensor.scales),
        "zero_points": list(tensor.zero_points),
    }


def _text(found: dict) -> str:
    ends = [
        (way, end["name"], _shape(end), end["dtype"], _numbers(end["scales"]), _numbers(zeros))
        for way in ("inputs", "outputs")
        for end, zeros in ((end, end["zero_points"]) for end in found[way])
    ]
    operators = [(op["type"], op["precision"], f"{op['count']}") for op in found["operators"]]
    kernels = [
        (
            kernel["name"],
            kernel["operator"],
            _shape(kernel),
            kernel["dtype"],
            f"{kernel['zeros']:,}",
            f"{kernel['size']:,}",
            f"{kernel['zeros'] / kernel['size']:.2%}",
            f"{kernel['codes']} ({kernel['codes_total']})",
        )
        for kernel in found["kernels"]
    ]
    heads = ("kernel", "operator", "shape", "type", "zeros", "size", "sparsity", "codes (all)")
    return "\n\n".join(
        [
            f"{found['bytes']:,} bytes, {found['gzip_bytes']:,} gzipped, "
            f"{found['sparsity']:.2%} of the kernels' values are zeros",
            table(ends, ("", "name", "shape", "type", "scale", "zero point"), 4),
            table(operators, ("operator", "runs in", "count"), 2),
            f"stay float: {', '.join(found['float_ops']) or 'none'}",
            table(kernels, heads, 4),
        ]
    )


def _shape(tensor: dict) -> str:
    return "×".join(map(str, tensor["shape"]))


def _numbers(values: list) -> str:
    return ", ".join(f"{value:g}" for value in values)
