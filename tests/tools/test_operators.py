import json
import stat
import sys

import pytest

from tests.answered import answered
from tfopt import operators, profiler
from tfopt.benchmark import CannotRunError, Setting
from tfopt.errors import ConfigError
from tfopt.tools import benchmark as tool_of
from tfopt.tools.benchmark import main

# In the form of TensorFlow's README of its tool, with figures of a detector on a small board.
SAID = """STARTING!
Graph: [{graph}]
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
count=50 first=58154 curr=53809 min=53077 max=60727 avg=55043.2 std=1562

Inference timings in us: Init: 18777, First inference: 64791, Warmup (avg): 57758.2, Inference (avg): 55043.2
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t            0.000\t    0.046\t    0.046\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t    0.000\t    4.269\t    4.269\t  0.107%\t  0.107%\t     0.000\t        0\t[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]
\t       DEPTHWISE_CONV_2D\t    4.270\t    2.150\t    2.150\t  0.054%\t  0.161%\t     0.000\t        2\t[Conv2d_1_depthwise/Relu6]:1
\tDelegate/Convolution (NHWC, F32) IGEMM\t    6.421\t    6.107\t    6.107\t  0.153%\t  0.314%\t     0.000\t        1\t[Delegate]:2

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t   19.352\t    6.652\t    6.652\t  0.167%\t  0.167%\t     0.000\t        0\t[MobilenetV1/MobilenetV1/Conv2d_3_pointwise/Relu6]
"""  # noqa: E501
FOUND = [
    ("CONV_2D [MobilenetV1/MobilenetV1/Conv2d_0/Relu6]", 4269),
    ("DEPTHWISE_CONV_2D [Conv2d_1_depthwise/Relu6]:1", 4300),
    ("Delegate/Convolution (NHWC, F32) IGEMM [Delegate]:2", 6107),
]


def tool(folder, code=0, said=SAID):
    """Write a benchmark_model that keeps its arguments and says what it should."""
    path = folder / "benchmark_model"
    path.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        f"pathlib.Path({str(folder / 'arguments')!r}).write_text('\\n'.join(sys.argv[1:]))\n"
        f"print({said!r}, file=sys.stderr)\nsys.exit({code})\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_what_tensorflows_tool_says(tmp_path):
    found = operators.by_tool(tool(tmp_path), Setting(tmp_path / "a.tflite", 2, False), 70)
    assert [(o.name, pytest.approx(o.mean_us)) for o in found.operators] == FOUND
    assert (found.source, found.inference_us) == ("benchmark_model", 55043.2)
    assert (tmp_path / "arguments").read_text().splitlines() == [
        *(f"--graph={tmp_path / 'a.tflite'}", "--num_threads=2", "--use_xnnpack=false"),
        *("--num_runs=70", "--enable_op_profiling=true"),
    ]


def test_releases_without_a_start_have_the_same_columns():
    assert [(o.name, pytest.approx(o.mean_us)) for o in operators.parsed(_without_start())] == FOUND


def _without_start():
    lines = [line.split("\t") for line in SAID.splitlines()]
    return "\n".join("\t".join(c[:2] + c[3:] if len(c) > 8 else c) for c in lines)


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        (1, "ERROR: Failed to load model", "ends with 1 and .*ERROR: Failed to load model"),
        (0, SAID.partition("Operator-wise")[0], "to print the times of operators, received none"),
    ],
)
def test_a_tool_that_cant(tmp_path, code, said, message):
    with pytest.raises(CannotRunError, match=message):
        operators.by_tool(tool(tmp_path, code, said), Setting(tmp_path / "a.tflite"), 10)


def test_without_profiler_and_tool_it_is_said_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert operators.chosen("") == ""
    monkeypatch.setattr(profiler, "is_here", lambda: False)
    with pytest.raises(ConfigError, match="received neither; pip install .* or build it by `bazel"):
        operators.chosen("")
    path = tool(tmp_path)
    assert operators.chosen("") == operators.chosen(path) == path


def test_a_tool_that_isnt_there_is_refused_before_anything_is_measured(files):
    code, output, errors, loaded = answered(
        "benchmark", str(files / "small.tflite"), "--benchmark_model=/nowhere"
    )
    assert (code, output, loaded) == (2, "", "LIGHT")
    assert "received '/nowhere', which can't be run; build it by" in errors
    assert errors.count("\n") == 1


@pytest.mark.skipif(not profiler.is_here(), reason="needs LiteRT 2.3")
def test_litert_profiles_its_operators_and_xnnpacks(files, capsys):
    arguments = ["--operators", "--xnnpack=both", "--runs=40", "--rounds=2"]
    assert main([str(files / "large.tflite"), *arguments, "--json"]) == 0
    delegated, own = json.loads(capsys.readouterr().out)["operators"]
    assert [o["name"] for o in own["operators"]] == ["0 FULLY_CONNECTED", "1 FULLY_CONNECTED"]
    shaped, first, _, second = [o["name"] for o in delegated["operators"]]
    assert shaped == "0 Static Reshape (NC)" and "1 Fully Connected" in first
    assert "3 Fully Connected" in second
    for found in (delegated, own):
        # Both multiply 256 by 2,048 numbers.
        times = [o["mean_us"] for o in found["operators"] if o["mean_us"] > 1]
        assert len(times) == 2 and max(times) < 10 * min(times)
        assert 0.3 * found["inference_us"] < sum(times) <= found["inference_us"]


def test_the_table_ends_with_what_is_no_operator(files, tmp_path, capsys):
    arguments = ["--runs=20", "--rounds=2", f"--benchmark_model={tool(tmp_path)}"]
    assert main([str(files / "small.tflite"), *arguments]) == 0
    text = capsys.readouterr().out
    assert "small.tflite, threads: 1, with XNNPACK, by benchmark_model" in text
    assert "Its operators take 27% of the profiled time.\n" in text
    lines = [line.split() for line in text.splitlines()[-5:]]
    assert lines[0][-2:] == ["6,107.0", "11.1%"] and lines[2][-2:] == ["4,269.0", "7.8%"]
    assert lines[3][-2:] == ["40,367.2", "73.3%"] and lines[4][-2:] == ["55,043.2", "100.0%"]


def test_what_the_profiler_rounds_down_is_said_where_it_is_most():
    found = {"file": "a", "threads": 1, "xnnpack": True, "source": operators.PROFILER}
    found |= {"inference_us": 10.0, "operators": [{"name": "0 CONV_2D", "mean_us": 4.0}]}
    text = tool_of._operators(found)
    assert "take 40% of the profiled time: LiteRT's profiler rounds each down to whole µs" in text
    assert "40.0%" in text and "of the profiled time\n" in text
    found["operators"][0]["mean_us"] = 6.0
    assert "rounds" not in tool_of._operators(found)
