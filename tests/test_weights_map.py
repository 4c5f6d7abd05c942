"""The weights map: depth rules, entries, and refusals that name the place."""

import itertools

import pytest
import torch
from conftest import mlp
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from motivation.families import paired_blocks
from motivation.models import CifarResNet
from motivation.weights_map import NestingError, map_weights


def test_depth_rules_of_the_paper():
    assert paired_blocks(3, 5, "last-to-last") == [0, 1, 4]
    assert paired_blocks(1, 5, "last-to-last") == [0]
    assert paired_blocks(3, 5, "first") == [0, 1, 2]
    assert paired_blocks(3, 5, "spread") == [0, 2, 4]


@given(st.integers(1, 30), st.integers(0, 30), st.sampled_from(["last-to-last", "first", "spread"]))
def test_every_base_block_has_its_own_place(base, more, rule):
    """Indices increase strictly, start at 0 and stay inside the motivated stage, whatever the depths."""
    places = paired_blocks(base, base + more, rule)
    assert len(places) == base
    assert places[0] == 0
    assert all(a < b for a, b in itertools.pairwise(places))
    assert places[-1] < base + more
    if base > 1 and rule != "first":
        assert places[-1] == base + more - 1


def test_differential_blocks_are_what_no_base_block_maps_to():
    weights_map = map_weights(CifarResNet(20), CifarResNet(32))
    assert weights_map.differential_blocks == tuple(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (2, 3))
    assert not weights_map.sliced


def test_equal_networks_map_whole():
    weights_map = map_weights(CifarResNet(20), CifarResNet(20))
    assert not weights_map.differential_blocks
    assert [e.base for e in weights_map.entries] == [e.motivated for e in weights_map.entries]


def test_structural_map_refuses_widths_it_cannot_carry():
    with pytest.raises(NestingError, match=r"^1\.weight: shape \(6, 64\) in the base, \(9, 64\)"):
        map_weights(mlp(6), mlp(9))
    with pytest.raises(NestingError, match=r"^1\.weight: shape \(9, 64\) of the base does not fit"):
        map_weights(mlp(9), mlp(6), "literal")


@pytest.mark.parametrize(("base", "motivated", "message"), [
    (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Conv2d(2, 2, 1)), r"^0: Linear in the base, Conv2d"),
    (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, bias=False)), r"^0\.bias: the motivated network"),
    (nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ModuleDict({"b": nn.Linear(2, 2)}), r"child 'a' exists only"),
    (nn.LazyLinear(2), nn.LazyLinear(2), "not initialised yet"),
])
def test_refusals_name_the_place(base, motivated, message):
    with pytest.raises(NestingError, match=message):
        map_weights(base, motivated)


def test_tied_parameters_are_refused():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(NestingError, match=r"1\.weight and 0\.weight of the base network are one tied parameter"):
        map_weights(tied, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_index_tables_stay_each_networks_own():
    """Only buffers that training changes are mapped: running statistics, not masks or index tables."""
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(3, dtype=torch.long))
            self.register_buffer("cache", torch.ones(3), persistent=False)
            self.register_buffer("mean", torch.ones(3))

    assert [entry.base for entry in map_weights(Masked(), Masked()).entries] == ["mean"]
