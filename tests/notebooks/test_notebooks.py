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
PICTURES = {"notebooks/01_quickstart.ipynb": 2, "colab/tfopt_quickstart.ipynb": 0}
ARTIFACTS = [
    *(f"train_{variant}" for variant in ("float32", "float16", "dynamic", "int8")),
    *(f"prune_{variant}" for variant in ("float32", "float16", "dynamic", "int8")),
    "quantize_int8",
]
FEWER = """\
for stage in experiment.stages:
    stage.epochs = 2
experiment.min_agreement = 0.2
"""


class OwnKernel(KernelManager):
    """A kernel of this very Python, whatever kernels are registered on the machine."""

    def format_kernel_cmd(self, extra_arguments=None):
        return [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]


@pytest.fixture(scope="module", params=PICTURES)
def executed(request, tmp_path_factory):
    notebook = nbformat.read(ROOT / request.param, as_version=4)
    tagged = [
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    ]
    assert len(tagged) == 1
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(FEWER))
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
    assert "strategy auto -> " in printed


def test_quickstart_shows_an_error_and_that_zeros_stay(executed):
    path, notebook = executed
    if path != "notebooks/01_quickstart.ipynb":
        pytest.skip("the Colab page has neither")
    printed = "".join(output.get("text", "") for c in code_cells(notebook) for output in c.outputs)
    assert "did you mean 'mirrored'?" in printed
    assert len(re.findall(r"^\w+ +0 of [\d,]+ zeros came back$", printed, re.MULTILINE)) == 9


@pytest.mark.parametrize("path", PICTURES)
def test_is_clean_and_thin(path):
    notebook = nbformat.read(ROOT / path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    defined = [
        getattr(node, "name", "lambda")
        for node in ast.walk(ast.parse(python_of(notebook)))
        if isinstance(node, definitions)
    ]
    assert [name for name in defined if not name.startswith("plot_")] == []
