"""The weights map: depth rules, entries, and refusals that name the place."""

import dataclasses
import json
import math
from functools import partial

import pytest
import timm
import torch
from conftest import mlp
from hypothesis import given
from hypothesis import strategies as st
from networks import vits
from torch import nn
from torch.nn.utils import prune

from motivation.models import CifarResNet
from motivation.pairing.dim_map import DimMap
from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError
from motivation.pairing.weights_map import Entry, WeightsMap


def test_differential_blocks_are_what_no_base_block_maps_to():
    weights_map = map_weights(CifarResNet(20), CifarResNet(32))
    assert weights_map.differential_blocks == tuple(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (2, 3))
    assert not weights_map.sliced


def test_equal_networks_map_whole():
    weights_map = map_weights(CifarResNet(20), CifarResNet(20))
    assert not weights_map.differential_blocks
    assert [e.base for e in weights_map.entries] == [e.motivated for e in weights_map.entries]


def test_a_smaller_motivated_network_is_refused():
    message = r"^1\.weight: shape \(9, 64\) of the base does not fit in shape \(6, 64\)"
    for name in ("structural", "literal"):
        with pytest.raises(NestingError, match=message):
            map_weights(mlp(9), mlp(6), name)


@pytest.mark.parametrize(("base", "motivated", "message"), [
    (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Conv2d(2, 2, 1)), r"^0: Linear in the base, Conv2d"),
    (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2, bias=False)), r"^0\.bias: the motivated network"),
    (nn.Sequential(nn.Linear(2, 2, bias=False)), nn.Sequential(nn.Linear(2, 2)), r"^0\.bias: the base has no such"),
    (nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3, stride=2),
     r"^the network itself: stride is \(1, 1\) in the base, \(2, 2\)"),
    (nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 4)), r"^0\.weight: .*it is the number of classes"),
    (nn.Sequential(nn.Conv2d(2, 4, 3)), nn.Sequential(nn.Conv2d(4, 8, 3)), r"no image runs through both networks"),
    (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)),
     r"^1\.weight: .*"),
    (nn.Bilinear(2, 2, 2), nn.Bilinear(2, 2, 3), r"no image runs through both networks.* image_shape"),
    (nn.ModuleDict({"a": nn.Linear(2, 2)}), nn.ModuleDict({"b": nn.Linear(2, 2)}), r"child 'a' exists only"),
    (nn.LazyLinear(2), nn.LazyLinear(2), "not initialised yet"),
])
def test_refusals_name_the_place(base, motivated, message):
    with pytest.raises(NestingError, match=message):
        map_weights(base, motivated)


class Set(nn.Module):
    """A module that is set to something."""

    def __init__(self, width=2, **settings):
        super().__init__()
        self.linear = nn.Linear(2, width)
        self.back = nn.Linear(width, 2)
        vars(self).update(settings)

    def forward(self, x):
        return self.back(self.linear(x))


def test_what_paired_modules_compute_beside_their_weights_must_agree():
    """One network of activations, pools, norms or plain settings is not another's base, whatever its weights."""
    for ours, theirs, message in (
            (nn.ReLU(), nn.GELU(), "1: ReLU in the base, GELU in the motivated network"),
            (nn.ReLU(), nn.Identity(), "1: ReLU in the base, Identity"), (nn.Sequential(), nn.Tanh(), "1: Sequential"),
            (nn.AvgPool1d(2), nn.MaxPool1d(2), "1: AvgPool1d in the base, MaxPool1d"),
            (nn.GELU(), nn.GELU("tanh"), "1: approximate is none in the base, tanh in the motivated network"),
            (nn.LayerNorm(2), nn.LayerNorm(2, eps=1e-3), "1: eps is 1e-05 in the base, 0.001"),
            (nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
             "1: padding_mode is zeros in the base, reflect"),
            (Set(beta=0.5), Set(beta=1), r"1: beta is 0\.5 in the base, 1 in"),
            (Set(alpha=None), Set(alpha=0.5), r"1: alpha is None in the base, 0\.5 in"),
            (Set(act=nn.functional.relu), Set(act=nn.functional.gelu), "1: act is <function relu"),
            (Set(act=partial(nn.functional.elu, alpha=2.0)), Set(act=nn.functional.elu), "1: act is functools.partial"),
            (Set(scale=0.5), Set(scale=0.25), r"1: scale is 0\.5 in the base, 0\.25")):
        with pytest.raises(NestingError, match=f"^{message}"):
            map_weights(nn.Sequential(nn.Linear(2, 2), ours), nn.Sequential(nn.Linear(2, 2), theirs))
        # The paper's map looks at tensors; that logits differ is then the pair's to say.
        assert map_weights(nn.Sequential(nn.Linear(2, 2), ours), nn.Sequential(nn.Linear(2, 2), theirs), "literal")


def test_what_may_differ():
    """What acts in training alone, functions made twice, and an attention's scale where widths differ (noted)."""
    for ours, theirs in ((nn.Identity(), nn.Dropout(0.1)), (nn.Dropout(0.2), nn.Dropout(0.1)),
                         (nn.ReLU(True), nn.ReLU()), (nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=0.5)),
                         (Set(drop_rate=0.0), Set(drop_rate=0.1)),
                         (Set(init_values=0.1), Set(init_values=1e-5)),
                         (Set(mlp_ratio=4.0), Set(mlp_ratio=3.0)), (nn.Sequential(nn.Dropout()), nn.Identity()),
                         [Set(act=partial(nn.functional.elu, alpha=2.0)) for _ in range(2)],
                         [Set(act=lambda x: x) for _ in range(2)]):
        assert map_weights(nn.Sequential(nn.Linear(2, 2), ours), nn.Sequential(nn.Linear(2, 2), theirs)).notes == ()
    weights_map = map_weights(nn.Sequential(nn.Linear(2, 2), Set(2, scale=0.5)),
                              nn.Sequential(nn.Linear(2, 2), Set(4, scale=0.25)))
    assert weights_map.notes == ("1: scale is 0.5 in the base, 0.25 in the motivated network",)


def test_another_depth_rule_is_named_where_it_helps():
    def staged(*betas):
        return nn.Sequential(nn.Sequential(*(Set(beta=float(beta)) for beta in betas)), nn.Linear(2, 2))

    with pytest.raises(NestingError, match=r"^0\.1: beta is 2\.0 .*; depth_rule='last-to-last' pairs blocks that"):
        map_weights(staged(1, 2), staged(1, 3, 2))
    with pytest.raises(NestingError, match=r"^0\.1: beta is 2\.0 in the base, 3\.0 in the motivated network$"):
        map_weights(staged(1, 2), staged(1, 3, 4))
    with pytest.raises(NestingError, match=r"^0\.1: beta is 2\.0 in the base, 3\.0 in the motivated network$"):
        map_weights(staged(1, 2), staged(1, 3))


def test_tied_parameters_are_refused():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(NestingError, match=r"1\.weight and 0\.weight of the base network are one tied parameter"):
        map_weights(tied, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda network: network.append(network[0]), r"^2\.weight and 0\.weight of the base network are one tied"),
    (lambda network: network.extend([(norm := nn.BatchNorm1d(2, affine=False)), norm]),
     r"^3 and 2 of the base .* one module"),
    (lambda network: setattr(network[1], "weight", nn.Parameter(network[0].weight.data)),
     r"^1\.weight and 0\.weight of the base network share memory"),
    (lambda network: prune.random_unstructured(network[1], "weight", 0.5),
     r"^1 of the base network is pruned"),
    (lambda network: nn.utils.parametrizations.weight_norm(network[1]), r"^1 of the base network is parametrised"),
    (lambda network: nn.utils.parametrizations.spectral_norm(network[0]), r"^0 of the base network is parametrised"),
    (lambda network: network.append(nn.LazyLinear(2)), r"^2\.weight of the base network is not initialised yet"),
    (lambda network: network.append(type("Linear", (nn.Identity,), {"__module__": "torch.ao.nn.quantized"})()),
     r"^2 of the base network is quantised"),
])
def test_what_has_no_plain_weights_is_refused(spoil, message):
    base, motivated = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    spoil(base)
    with pytest.raises(NestingError, match=message):
        map_weights(base, motivated)


def test_heads_of_one_width_are_told_apart_from_other_heads():
    """Equal shapes, other heads: only the network's own views show it."""
    (base, _), (_, motivated) = vits(16, 16, (1, 1), (2, 4)), vits(16, 16, (1, 1), (2, 4))
    with pytest.raises(NestingError, match=r"^blocks\.0\.attn\.qkv\.weight: .*8 in the base do not fit in 4"):
        map_weights(base, motivated)


def test_position_embeddings_of_another_grid_are_refused():
    """The same image gives 4 patches or 16: the table of positions is not a slice of the other."""
    base, motivated = vits()[0], vits()[1]
    grid = timm.create_model("vit_tiny_patch16_224", num_classes=5, in_chans=1, img_size=16, patch_size=4, embed_dim=16,
                             depth=2, num_heads=4)
    assert map_weights(base, motivated)
    with pytest.raises(NestingError, match=r"^pos_embed: shape \(1, 5, 8\) .* in shape \(1, 17, 16\) .*: no image runs "
                       r"through both networks: the base takes 1 x 8 x 8, the motivated network 1 x 16 x 16; create"):
        map_weights(base, grid)


def test_map_is_saved_read_and_overridden():
    base, motivated = vits()
    weights_map = map_weights(base, motivated)
    assert WeightsMap.from_json(weights_map.to_json()) == weights_map
    weights_map.check(base, motivated)
    values = json.loads(weights_map.to_json())
    values["entries"][0]["dims"][2] = [8, 17]
    with pytest.raises(NestingError, match=r"^cls_token: shape \(1, 1, 17\) in the map, \(1, 1, 16\) in the motivated"):
        WeightsMap.from_json(json.dumps(values)).check(base, motivated)
    with pytest.raises(NestingError, match=r"^cls_token: the map leaves out this parameter"):
        dataclasses.replace(weights_map, entries=weights_map.entries[1:]).check(base, motivated)
    with pytest.raises(NestingError, match=r"^cls_token: the map names it, but"):
        dataclasses.replace(weights_map, entries=weights_map.entries[:1] * 2).check(base, motivated)
    for changes, message in (
            ({"differential_blocks": ("blocks",), "nearest_blocks": ("",)},
             r"^blocks: the map calls this block differential, but maps blocks\.0"),
            ({"differential_blocks": ("",), "nearest_blocks": ("",)}, "^the network itself: the map calls this block"),
            ({"differential_blocks": ("blocks.7",)}, r"^blocks\.7: the map names it as a block, but"),
            ({"nearest_blocks": ()}, "^the map has 1 differential_blocks and 0 nearest_blocks"),
            ({"nearest_blocks": ("blocks.7",)}, r"^blocks\.7: the map names it as a block, but")):
        with pytest.raises(NestingError, match=message):
            dataclasses.replace(weights_map, **changes).check(base, motivated)
    for text in ('{"entries": [{}]}', '{"entries": [{"base": "a", "motivated": "a", "dims": [[3, 2]]}]}', "[]", "x"):
        with pytest.raises(ValueError, match=r"not a weights map|is no dimension|Expecting value"):
            WeightsMap.from_json(text)


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


def test_index_tables_stay_each_networks_own():
    """Only buffers that training changes are mapped: running statistics, not masks or index tables."""
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(3, dtype=torch.long))
            self.register_buffer("cache", torch.ones(3), persistent=False)
            self.register_buffer("mean", torch.ones(3))

    assert [entry.base for entry in map_weights(Masked(), Masked()).entries] == ["mean"]
