"""What SLURM and Kubernetes are told gives every worker a TF_CONFIG that is understood."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tfopt import cluster

MANIFESTS = Path(__file__).parents[1] / "configs" / "cluster"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A function that puts a shell script on the PATH; `tfopt` prints TF_CONFIG and its flags."""

    def put(name, *lines):
        (tmp_path / name).write_text("\n".join(["#!/bin/bash", *lines]))
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    put("tfopt", 'echo $TF_CONFIG; echo "$@"')
    return put


def found(monkeypatch, output):
    text, flags = output.splitlines()
    assert "--config.strategy=multi_worker" in flags
    monkeypatch.setenv("TF_CONFIG", text)
    return cluster.described()


def test_slurm(programs, monkeypatch, tmp_path):
    programs("scontrol", "printf 'node7\\nnode9\\n'")
    # As the real one does, but one after another: each task with its own number.
    programs("srun", "shift", 'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done')
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[7,9]")
    monkeypatch.chdir(tmp_path)
    command = ["bash", MANIFESTS / "slurm.sbatch"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    workers = [found(monkeypatch, "\n".join(lines[i : i + 2])) for i in (0, 2)]
    addresses = "node7:12345", "node9:12345"
    assert workers == [cluster.Cluster(addresses, index) for index in range(2)]
    assert f"--workdir={tmp_path}/runs/cifar10_resnet8" in lines[1]


def test_slurm_starts_what_was_preempted_again(programs, monkeypatch):
    programs("scontrol", "if [ $1 = requeue ]; then echo again $2; else echo node7; fi")
    programs("srun", "exit 75")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node7")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    command = ["bash", MANIFESTS / "slurm.sbatch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "again 4711\n")


def test_kubernetes(programs, monkeypatch):
    service, job = yaml.safe_load_all((MANIFESTS / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert spec["completions"] == spec["parallelism"] == int(environment["WORKERS"]) == 2
    addresses = "tfopt-0.tfopt:12345", "tfopt-1.tfopt:12345"
    for index in range(2):
        done = subprocess.run(
            container["command"],
            env={**os.environ, **environment, "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found(monkeypatch, done.stdout) == cluster.Cluster(addresses, index)
    assert container["ports"] == [{"containerPort": 12345}]
