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
NOTEBOOKS = ["notebooks/01_quickstart.ipynb", "colab/tfopt_quickstart.ipynb"]
FEWER = "for stage in experiment.stages:\n    stage.epochs = 2\nexperiment.min_agreement = 0.2"


def code_of(notebook):
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return "\n".join(re.sub(r"^( *)%.*", r"\1pass", source, flags=re.MULTILINE) for source in cells)


class OwnKernel(KernelManager):
    """A kernel of this very Python, whatever kernels are registered on the machine."""

    def format_kernel_cmd(self, extra_arguments=None):
        command = super().format_kernel_cmd(extra_arguments)
        return [sys.executable, *command[1:]]


@pytest.fixture(scope="module", params=NOTEBOOKS)
def executed(request, tmp_path_factory):
    notebook = nbformat.read(ROOT / request.param, as_version=4)
    place = 1 + next(
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    )
    notebook.cells.insert(place, nbformat.v4.new_code_cell(FEWER))
    folder = str(tmp_path_factory.mktemp("notebook"))
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": folder}},
    )
    return client.execute(
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    )


def outputs_of(notebook):
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def test_runs_and_shows_a_row_per_artifact(executed):
    text = "".join(output.get("text", "") for output in outputs_of(executed))
    assert len(re.findall(r"^(?:train|prune|quantize)_\w+ +\d", text, re.MULTILINE)) == 9
    pictures = [o for o in outputs_of(executed) if "image/png" in o.get("data", {})]
    assert len(pictures) == len(re.findall("^plot_", code_of(executed), re.MULTILINE))


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_is_clean_and_thin(path):
    notebook = nbformat.read(ROOT / path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [
        node for node in ast.walk(ast.parse(code_of(notebook))) if isinstance(node, definitions)
    ]
    assert all(getattr(node, "name", "").startswith("plot_") for node in defined)
