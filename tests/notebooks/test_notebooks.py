"""Both notebooks run top to bottom, are committed clean, and define nothing but plots."""

import ast
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
QUICKSTART, COLAB = "notebooks/01_quickstart.ipynb", "colab/tfopt_quickstart.ipynb"
PICTURES = {QUICKSTART: 2, COLAB: 0}
PRINTED = {
    QUICKSTART: [r"did you mean 'mirrored'\?", r"(^\w+ +0 of [\d,]+ zeros came back\n){9}"],
    COLAB: [r"^tensorboard --logdir=.+", r"\.tflite: \d+\.\d+%, [\d,]+ bytes gzipped$"],
}
ARTIFACTS = [
    *(f"train_{variant}" for variant in ("float32", "float16", "dynamic", "int8")),
    *(f"prune_{variant}" for variant in ("float32", "float16", "dynamic", "int8")),
    "quantize_int8",
]
FEWER = """\
for stage in experiment.stages:
    stage.epochs = 2
experiment.min_agreement = 0.2
workdir = Path({workdir!r})
"""


class OwnKernel(KernelManager):
    """A kernel of this very Python, whatever kernels are registered on the machine."""

    def format_kernel_cmd(self, extra_arguments=None):
        return [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """One folder for both notebooks: the second goes on where the first ended, untrained."""
    return str(tmp_path_factory.mktemp("run") / "digits")


@pytest.fixture(scope="module", params=PICTURES)
def executed(request, workdir, tmp_path_factory):
    notebook = nbformat.read(ROOT / request.param, as_version=4)
    tagged = [
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    ]
    assert len(tagged) == 1
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(FEWER.format(workdir=workdir)))
    folder = str(tmp_path_factory.mktemp("notebook"))
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": folder}},
    )
    apart = {
        "TMPDIR": folder,
        "IPYTHONDIR": folder,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    return request.param, client.execute(env={**os.environ, **apart})


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python_of(notebook):
    """Return the code with IPython's magics put out, so that Python can parse it."""
    sources = [cell.source for cell in code_cells(notebook)]
    return re.sub(r"^( *)%.*", r"\1pass", "\n".join(sources), flags=re.MULTILINE)


def test_runs_and_shows_every_artifact_and_plot(executed):
    path, notebook = executed
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert all(cell.execution_count for cell in code_cells(notebook))
    printed = "".join(output.get("text", "") for output in outputs)
    table = printed[printed.index("\nartifact  ") :]
    assert re.findall(r"^([a-z]+_\w+) +\d+\.\d+%", table, re.MULTILINE) == ARTIFACTS
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == PICTURES[path]
    for pattern in ["^strategy auto -> ", *PRINTED[path]]:
        assert re.search(pattern, printed, re.MULTILINE), pattern


@pytest.mark.parametrize("path", PICTURES)
def test_is_clean_and_thin(path):
    notebook = nbformat.read(ROOT / path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [
        node.name
        for node in ast.walk(ast.parse(python_of(notebook)))
        if isinstance(node, definitions)
    ]
    assert [name for name in defined if not name.startswith("plot_")] == []
