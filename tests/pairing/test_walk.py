"""Which networks nest: refusals name the place, and what may differ."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError


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


def test_index_tables_stay_each_networks_own():
    """Only buffers that training changes are mapped: running statistics, not masks or index tables."""
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(3, dtype=torch.long))
            self.register_buffer("cache", torch.ones(3), persistent=False)
            self.register_buffer("mean", torch.ones(3))

    assert [entry.base for entry in map_weights(Masked(), Masked()).entries] == ["mean"]
