import json
import re
import socket
import threading
import time

import pytest

from tests.answered import answered
from tfopt import cluster
from tfopt.errors import ConfigError
from tfopt.strategy import choose
from tfopt.tools.launch import free_ports


def described(monkeypatch, jobs, task=None):
    found = {"cluster": jobs, "task": task or {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", found if isinstance(found, str) else json.dumps(found))
    return cluster.described()


def test_the_chief_comes_first(monkeypatch):
    jobs = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    found = described(monkeypatch, jobs, {"type": "worker", "index": 1})
    assert found == cluster.Cluster(("a:1", "b:1", "c:1"), 2)
    assert described(monkeypatch, jobs, {"type": "chief", "index": 0}).index == 0


@pytest.mark.parametrize("text", ["", " ", "{}", '{"cluster": {}}'])
def test_none_is_described(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert cluster.described() is None


def test_it_is_told_before_tensorflow_loads(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", "{cluster}")
    code, _, errors, loaded = answered("--config=digits", f"--workdir={tmp_path}")
    assert (code, loaded) == (2, "LIGHT")
    assert errors.startswith("tfopt: TF_CONFIG: expected JSON, received '{cluster}'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{cluster}", "TF_CONFIG: expected JSON, received '{cluster}' (Expecting property name"),
        ("[1]", "expected a cluster with its lists of workers, received '[1]'; write it as {"),
        ('{"cluster": {"worker": "a:1"}}', "expected a cluster with its lists of workers"),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}', "received a job 'ps'"),
        ('{"cluster": {"worker": ["a"]}}', "expected addresses as 'host0:12345', received 'a'"),
        ('{"cluster": {"worker": ["a:70000"]}}', "received 'a:70000'"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "received 'a:1' twice"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            "expected a task worker from 0 to 1, received worker 2",
        ),
        ('{"cluster": {"worker": ["a:1"]}}', "from 0 to 0, received none; give each"),
        ('{"cluster": {"worker": []}}', "expected a cluster with its lists of workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": []}}', "from 0 to 0, received [] None"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
            "from 0 to 0, received chief 0",
        ),
    ],
)
def test_what_cant_be_understood_is_an_error(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose("auto")


def test_multi_worker_needs_a_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="expected TF_CONFIG in the environment"):
        choose("multi_worker")


def test_a_port_in_use_is_an_error():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"received {address}, which can't be listened at"):
            cluster.Cluster((address,), 0).gather(1)


def test_who_is_missing_is_named_in_time():
    ports = free_ports(3)
    addresses = tuple(f"127.0.0.1:{port}" for port in ports)
    with socket.socket() as second:
        second.bind(("127.0.0.1", ports[1]))
        second.listen()
        began = time.monotonic()
        message = re.escape(f"received no answer of worker 2 at {addresses[2]}; start")
        with pytest.raises(ConfigError, match=f"within 1 seconds, {message}"):
            cluster.Cluster(addresses, 0).gather(1)
        assert time.monotonic() - began < 10


def test_workers_wait_for_the_last():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    first = threading.Thread(target=cluster.Cluster(addresses, 0).gather, args=(30,))
    first.start()
    time.sleep(0.5)
    assert first.is_alive()
    with socket.socket() as second:
        second.bind(("127.0.0.1", int(addresses[1].split(":")[1])))
        second.listen()
        first.join(timeout=10)
    assert not first.is_alive()
