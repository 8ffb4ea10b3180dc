"""Train, prune and quantize over argv[1] replicas; print the kernels as JSON.

A process of its own, since a process can have only one strategy.
"""

import json
import sys
import tempfile
from pathlib import Path

from tfopt.checkpoint import load_model
from tfopt.command_line import load_config
from tfopt.evaluate import logits
from tfopt.facts import kernel_variables
from tfopt.pipeline import run

replicas = int(sys.argv[1])
experiment = load_config(str(Path(__file__).parent / "tiny.py"))
experiment.strategy, experiment.replicas, experiment.deterministic = "mirrored", replicas, True
for stage in experiment.stages:
    stage.epochs = 1
experiment.min_agreement = 0.0
with tempfile.TemporaryDirectory() as folder:
    rows = run(experiment, Path(folder))
    found = {}
    test = experiment.data.load(experiment.batch_size).test
    for stage in experiment.stages:
        model = load_model(Path(folder) / stage.name / "model.h5")
        found[stage.name] = {
            "logits": logits(model, test)[0].tolist(),
            "kernels": {k: v.numpy().tolist() for k, v in kernel_variables(model).items()},
            "history": json.loads((Path(folder) / stage.name / "stage.json").read_text())[
                "history"
            ],
        }
print("RESULT " + json.dumps(found))
