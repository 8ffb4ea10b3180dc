import json
import logging

import pytest

from tests.pipeline import tiny
from tfopt.config import Mesh
from tfopt.errors import ConfigError
from tfopt.strategy import choose


@pytest.mark.parametrize("name", ["auto", "cpu", "mirrored"])
def test_chooses_a_strategy_and_says_so_in_one_line(name, caplog):
    with caplog.at_level(logging.INFO, "tfopt"):
        devices = choose(name)
    assert devices.replicas == 1 and devices.mesh is None
    lines = [record.message for record in caplog.records if record.name == "tfopt.strategy"]
    assert len(lines) == 1
    assert f"strategy {name} -> " in lines[0]
    assert "1 replica(s): " in lines[0]


@pytest.mark.parametrize(
    ("name", "replicas", "message"),
    [
        ("tpu", 0, "expected a TPU for 'tpu', received none called 'local'"),
        ("cpu", 2, "at most the 1 devices of strategy 'cpu' here, received 2"),
        ("mirrored", 64, "at most the 1 CPU devices that this process was started with"),
    ],
)
def test_devices_that_are_not_there(name, replicas, message):
    choose("cpu").strategy.run(lambda: None)
    with pytest.raises(ConfigError, match=message):
        choose(name, replicas)


def test_workers_of_one_tf_config_dont_each_write_as_if_alone(monkeypatch):
    task = {"cluster": {"worker": ["host0:1", "host1:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(ConfigError, match="'auto' on the 2 workers of TF_CONFIG, received 'cpu'"):
        choose("cpu")


@pytest.mark.parametrize("name", ["auto", "cpu", "mirrored"])
def test_a_named_tpu_beside_another_strategy(name):
    experiment = tiny.get_config()
    experiment.strategy, experiment.tpu = name, "my-tpu"
    with pytest.raises(ConfigError, match=f"strategy 'tpu' for 'my-tpu', received '{name}'; set"):
        experiment.validate()


def test_replicas_beside_a_mesh():
    experiment = tiny.get_config()
    experiment.strategy, experiment.mesh, experiment.replicas = "mesh", Mesh(batch=2), 4
    with pytest.raises(ConfigError, match="config.mesh, whose 2 rows are the replicas, received 4"):
        experiment.validate()


def test_a_mesh_of_one_device():
    experiment = tiny.get_config()
    experiment.strategy = "mesh"
    with pytest.raises(ConfigError, match="received 1×1; set config.mesh.batch or"):
        experiment.validate()


def test_a_mesh_larger_than_the_devices():
    choose("cpu").strategy.run(lambda: None)
    with pytest.raises(ConfigError, match="config.mesh: expected at most the 1 CPU devices .* 6;"):
        choose("mesh", mesh=Mesh(batch=2, model=3))


def test_a_tpu_that_doesnt_answer_is_named_in_time():
    with pytest.raises(ConfigError, match="within 1 seconds, received none at grpc://127.0.0.1:1;"):
        choose("tpu", timeout=1, tpu="grpc://127.0.0.1:1")


def test_a_tpu_of_a_name_that_the_cloud_doesnt_know_is_an_error():
    with pytest.raises(ConfigError, match="received none called 'no-such-tpu'"):
        choose("tpu", timeout=1, tpu="no-such-tpu")
