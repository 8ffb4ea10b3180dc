"""The search for the largest batch, against a compiler whose answer is known."""

import pytest

from tfopt.tpu import check
from tfopt.tpu.chips import find

HBM = 16 * 2**30


@pytest.mark.parametrize("limit", [0, 1, 5, 700, 100_000, 3_000_000])
@pytest.mark.parametrize("constant", [0, 2**20, 2**30])
@pytest.mark.parametrize("first", [1, 16, 4096])
def test_it_is_found_to_an_eighth_in_a_few_compilations(monkeypatch, limit, constant, first):
    at, limit = find("v5e:2x4"), min(limit, check._MOST - 1)
    each = (HBM - constant) / (limit + 0.5)
    tried = []

    def compiled(fitted, at, batch):
        tried.append(batch)
        activations = int(constant + each * batch)
        refused = "" if batch <= limit else "it needs more"
        return check.Checked(
            stage="train",
            topology=at.name,
            replicas=at.replicas,
            batch=batch,
            refused=refused,
            hbm=HBM,
            activations_bytes=0 if refused else activations,
        )

    monkeypatch.setattr(check, "_checked", compiled)
    found = check._largest(None, at, compiled(None, at, first))
    assert found <= limit <= found + max(found // 8, 1)
    assert len(tried) <= (13 if first > limit else 8)
