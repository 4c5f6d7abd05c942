"""The slices of tensors: every base element has one place in the motivated tensor."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from motivation.pairing.dim_map import DimMap
from motivation.pairing.split_qkv import split
from motivation.pairing.weights_map import Entry


def test_qkv_is_split_into_heads():
    """Rows of a fused projection: q, k and v each, of each the first heads, of each head the first of its width."""
    rows = DimMap.from_list(["product", [3, 3], [2, 4], [4, 6]])
    base, motivated = torch.arange(3 * 2 * 4), torch.arange(3 * 4 * 6)
    [(small, large)] = split([rows], base, motivated)
    assert torch.equal(small, base.view(3, 2, 4))
    assert torch.equal(large, motivated.view(3, 4, 6)[:, :2, :4])
    large.zero_()
    assert (motivated == 0).sum() == base.numel()  # views: what is written into them is written into the weights


def nested(children):
    """Places of a product or a sum of smaller ones."""
    return st.builds(lambda kind, parts: [kind, *parts], st.sampled_from(["product", "sum"]),
                     st.lists(children, min_size=2, max_size=3))


PLACES = st.recursive(st.integers(1, 3).flatmap(lambda base: st.tuples(st.just(base), st.integers(base, 4)).map(list)),
                      nested, max_leaves=4).map(DimMap.from_list)


@given(st.lists(PLACES, min_size=1, max_size=2))
def test_every_base_element_has_exactly_one_place(dims):
    """Expand then contract is the identity, no two elements share a place, and nothing else is touched."""
    entry = Entry("a", "b", tuple(dims))
    base = torch.arange(1, math.prod(entry.shape) + 1).view(entry.shape)
    motivated = torch.zeros(entry.motivated_shape, dtype=torch.long)
    for ours, theirs in entry.pieces(base, motivated):
        theirs.copy_(ours)
    assert sorted(motivated[motivated > 0].tolist()) == base.flatten().tolist()
    assert torch.equal(entry.slice_of(motivated), base)
    assert entry.aliased == (entry.shape == entry.motivated_shape)
    assert [DimMap.from_list(dim.as_list()) for dim in dims] == dims
