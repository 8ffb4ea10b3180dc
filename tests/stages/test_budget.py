import numpy as np
import pytest

from tfopt.data import Spec
from tfopt.facts import measure
from tfopt.models import ResNet
from tfopt.stages import budget
from tfopt.stages.channels import coupled


@pytest.fixture(scope="module")
def counted():
    """The channels of a ResNet with their kinds and both costs."""
    spec = Spec(shape=(16, 16, 3), class_names=("a", "b", "c"), train_size=8)
    model = ResNet(depth=8, width=20)(spec)
    found = coupled(model, lambda layer: False)
    kinds = budget.kinds(found)
    costs = [make(model, found, kinds) for make in (budget.params, budget.macs)]
    return model, found, kinds, costs


def test_a_kind_is_what_residual_blocks_share(counted):
    model, _, kinds, (params, macs) = counted
    # Within each of three blocks, and between them; and what stays.
    assert sorted(kinds.sizes) == [1, 20, 20, 40, 40, 80, 80]
    assert params(kinds.sizes) == measure(model).params
    assert macs(kinds.sizes) == measure(model).macs


@pytest.mark.parametrize("multiple", [1, 3, 8, 16, 32])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.95])
def test_widths_are_multiples_and_none_could_be_wider(counted, multiple, share):
    _, found, kinds, costs = counted
    scores = np.random.default_rng(0).random(found.count)
    cuts = budget.cuts(scores, kinds, multiple)
    for cost in costs:
        target = max(share * cost(kinds.sizes), cost(cuts.made(len(cuts.sizes), kinds.sizes)))
        left = budget.fitted(cuts, kinds.sizes, cost, target)
        assert target / 4 < cost(left) <= target
        cut = left < kinds.sizes
        assert np.all(left[cut] % multiple == 0)
        assert np.all(left[cut] >= multiple)
        for kind in np.flatnonzero(cut):
            wider = left.copy()
            wider[kind] = min(wider[kind] + multiple, kinds.sizes[kind])
            assert cost(wider) > target


def test_the_least_of_each_kind_go_first(counted):
    _, found, kinds, (params, _) = counted
    scores = np.random.default_rng(0).random(found.count)
    cuts = budget.cuts(scores, kinds, 4)
    left = budget.fitted(cuts, kinds.sizes, params, 0.4 * params(kinds.sizes))
    removed = budget.removed(cuts, kinds.sizes, left)
    gone = np.isin(np.arange(found.count), removed)
    assert len(removed) == (kinds.sizes - left).sum()
    for kind in np.unique(kinds.of[removed]):
        here = kinds.of == kind
        assert scores[here & gone].max() < scores[here & ~gone].min()


def test_equal_channels_go_in_equal_shares(counted):
    _, found, kinds, (params, _) = counted
    cuts = budget.cuts(np.ones(found.count), kinds, 1)
    left = budget.fitted(cuts, kinds.sizes, params, 0.25 * params(kinds.sizes))
    shares = (left / kinds.sizes)[kinds.sizes > 1]
    assert shares == pytest.approx(0.5, abs=0.03)


def test_what_has_no_known_worth_or_is_thin_is_left(counted):
    _, found, kinds, _ = counted
    scores = np.ones(found.count)
    scores[np.flatnonzero(kinds.sizes[kinds.of] == 80)[0]] = np.nan
    cuts = budget.cuts(scores, kinds, 20)
    left = cuts.made(len(cuts.sizes), kinds.sizes)
    assert sorted(left) == [1, 20, 20, 20, 20, 20, 80]
