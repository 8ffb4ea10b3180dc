"""Examples per second on 1 and 2 replicas and on 1 and 2 hosts, as ratios of one run.

    python tests/benchmarks/scaling.py [--rounds=3]

All train a ResNet-20 at global batch 256 on the same cores, through the command line: no speed-up
is possible, and what is measured is what distribution costs. `one, unfused` is one replica with
the BatchNormalization that several take, since the fused kernel can't synchronise. The first
epoch, which traces, is left out; a ratio is always taken within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tabulate

HERE = Path(__file__).parent
SCALING = f"--config={HERE / 'scaling_config.py'}"
UNFUSED = f"--config={HERE / 'scaling_unfused.py'}"
TFOPT = sys.executable, "-m", "tfopt"
CONTENDERS = {
    "one replica": (*TFOPT, SCALING, "--config.strategy=cpu"),
    "one, unfused": (*TFOPT, UNFUSED, "--config.strategy=cpu"),
    "two replicas": (*TFOPT, SCALING, "--config.strategy=mirrored", "--config.replicas=2"),
    "two hosts": (*TFOPT, "launch", "--workers=2", "--", SCALING),
}


def speed(command: tuple[str, ...]) -> float:
    """Return examples per second of training, over all epochs but the first."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, f"--workdir={folder}"], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        history = json.loads((Path(folder) / "train" / "stage.json").read_text())["history"]
    return statistics.median(epoch["examples_per_second"] for epoch in history[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ratios = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        found = {name: speed(command) for name, command in CONTENDERS.items()}
        for name, each in found.items():
            ratios[name].append(each / found["one replica"])
            print(f"{name:14} {each:8,.0f} examples/s", flush=True)
    rows = [
        [name, f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"]
        for name, each in ratios.items()
    ]
    headers = ["global batch 256, ResNet-20", "of one replica's examples/s"]
    print(tabulate.tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    main()
