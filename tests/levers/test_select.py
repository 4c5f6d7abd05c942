"""Rules: exactly the share with the highest scores is kept, nothing where there is no unit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motivation.levers.select import forget, select


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40, unique=True), st.floats(0.01, 1),
       st.integers(0, 9))
def test_the_highest_are_kept(scores, share, seed):
    """Against a literal sort."""
    units = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed)) < 0.7
    there = [place for place in range(len(scores)) if units[place]]
    count = max(1, round(share * len(there)))
    wanted = sorted(there, key=lambda place: -scores[place])[:count] if there else []
    weights = select(torch.tensor(scores), share, units)
    assert [place for place in range(len(scores)) if weights[place]] == sorted(wanted)
    assert set(weights.tolist()) <= {0.0, 1.0}


def test_the_share_is_of_the_units_of_a_whole_batch():
    scores, units = torch.arange(12.0).view(3, 4), torch.ones(3, 4, dtype=torch.bool)
    units[2, 2:] = False
    assert select(scores, 0.5, units).tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 0, 0]]
    assert select(scores, 1.0).sum() == 12


def test_what_is_not_kept_is_left_out_or_forgotten():
    weights, units = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([True, True, False])
    assert forget(weights, units, 0.0).tolist() == [1, 0, 0]
    assert forget(weights, units, 0.25).tolist() == [1, -0.25, 0]


def test_no_unit_is_no_error():
    assert select(torch.ones(2, 3), 0.5, torch.zeros(2, 3, dtype=torch.bool)).sum() == 0


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.26, 3), (1.0, 10)])
def test_at_least_one_is_kept(share, count):
    assert select(torch.arange(10.0), share).sum() == count
