"""Depth rules, the family's default, and a sample of timm's neighbours that pair automatically."""

import functools
import itertools

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from motivation.models import CifarResNet
from motivation.pairing.depth_rules import depth_rule_of, paired_blocks, paired_stage
from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError


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


def test_kinds_pair_with_their_own():
    """A stage of convolutions, then attention: the rule runs within each kind where it would mix them."""
    assert paired_stage("ccaa", "ccccaaa", "first") == [0, 1, 4, 5]
    assert paired_stage("ccaa", "ccccaaa", "last-to-last") == [0, 3, 4, 6]
    assert paired_stage("caa", "caaaa", "last-to-last") == [0, 1, 4]
    assert paired_stage("ca", "cca", "last-to-last") == [0, 2]
    assert paired_stage("ca", "accc", "first") == [0, 1]


def test_families_have_their_rule():
    assert depth_rule_of(CifarResNet(8)) == "last-to-last"
    with torch.device("meta"):
        assert depth_rule_of(timm.create_model("resnet50")) == "last-to-last"
        assert depth_rule_of(timm.create_model("efficientnet_b0")) == "first"
        assert depth_rule_of(timm.create_model("vit_tiny_patch16_224")) == "first"


@pytest.mark.parametrize(("rule", "differential"), [("last-to-last", [2, 3]), ("first", [3, 4]), ("spread", [1, 3])])
def test_rule_can_be_set(rule, differential):
    weights_map = map_weights(CifarResNet(20), CifarResNet(32), depth_rule=rule)
    assert weights_map.differential_blocks == tuple(f"layer{stage}.{block}" for stage in (1, 2, 3)
                                                    for block in differential)


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="unknown depth rule 'middle'; choose one of last-to-last, first, spread"):
        map_weights(CifarResNet(20), CifarResNet(32), depth_rule="middle")


def test_numbered_children_are_blocks():
    """A RegNet's stage names its blocks b1, b2, ...; they pair by the rule like those of a Sequential."""
    class Stage(nn.Module):
        def __init__(self, blocks):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            for number in range(blocks):
                self.add_module(f"b{number + 1}", nn.Linear(2, 2))

        def forward(self, x):
            x = self.stem(x)
            for name, block in self.named_children():
                x = x + block(x) if name != "stem" else x
            return x

    weights_map = map_weights(Stage(2), Stage(4), depth_rule="spread")
    assert weights_map.differential_blocks == ("b2", "b3")
    assert weights_map.nearest_blocks == ("b1", "b4")


# What a switch copies: nothing, or slices.
DEPTH, WIDTH = False, True
NEIGHBOURS = [
    ("resnet18", "resnet34", DEPTH), ("resnet50", "resnet101", DEPTH), ("resnet101", "resnet152", DEPTH),
    ("resnext101_32x4d", "resnext101_32x8d", WIDTH), ("wide_resnet50_2", "wide_resnet101_2", DEPTH),
    ("resnetv2_50", "resnetv2_101", DEPTH), ("regnetx_040", "regnetx_064", "s2: 5 blocks in the base, only 4"),
    ("regnety_002", "regnety_004", "s4: 7 blocks in the base, only 6"),
    ("densenet121", "densenet169", WIDTH), ("efficientnet_b0", "efficientnet_b1", DEPTH),
    ("efficientnet_b1", "efficientnet_b2", WIDTH), ("tf_efficientnetv2_b0", "tf_efficientnetv2_b1", DEPTH),
    ("efficientnetv2_s", "efficientnetv2_m", "conv_head.weight"),
    ("mobilenetv3_small_075", "mobilenetv3_small_100", WIDTH),
    ("mobilenetv3_large_075", "mobilenetv3_large_100", WIDTH), ("convnext_atto", "convnext_femto", WIDTH),
    ("convnext_tiny", "convnext_small", DEPTH), ("convnext_small", "convnext_base", WIDTH),
    ("convnextv2_pico", "convnextv2_nano", WIDTH), ("vit_tiny_patch16_224", "vit_small_patch16_224", WIDTH),
    ("vit_base_patch16_224", "vit_large_patch16_224", WIDTH),
    ("deit_tiny_patch16_224", "deit_small_patch16_224", WIDTH),
    ("deit3_small_patch16_224", "deit3_base_patch16_224", WIDTH),
    ("beit_base_patch16_224", "beit_large_patch16_224", WIDTH),
    ("eva02_tiny_patch14_224", "eva02_small_patch14_224", WIDTH),
    ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", DEPTH),
    ("swin_small_patch4_window7_224", "swin_base_patch4_window7_224", WIDTH),
    ("swinv2_tiny_window8_256", "swinv2_small_window8_256", DEPTH), ("mixer_s32_224", "mixer_b32_224", WIDTH),
    ("resmlp_12_224", "resmlp_24_224", DEPTH), ("maxvit_small_tf_224", "maxvit_base_tf_224", DEPTH),
    ("maxvit_tiny_tf_224", "maxvit_small_tf_224", "stages.0.blocks.0.conv.shortcut.expand: Identity in the base"),
    ("poolformer_s12", "poolformer_s24", DEPTH), ("davit_tiny", "davit_small", DEPTH),
    ("hgnet_tiny", "hgnet_small", WIDTH),
    ("ghostnet_100", "ghostnet_130", WIDTH), ("repvgg_b0", "repvgg_b1", WIDTH),
    ("nfnet_f0", "nfnet_f1", r"stages\.1\.0: beta is 0\.98"),
    ("regnetx_002", "regnetx_004", "s1.b1.conv1.conv.weight"), ("vgg11", "vgg13", "features.2: MaxPool2d in the base"),
]


@functools.cache
def on_meta(name):
    """A network without values, built once: mapping weights changes nothing."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=5)


@pytest.mark.parametrize(("base", "motivated", "result"), NEIGHBOURS)
def test_neighbours_pair_or_say_where_they_do_not(base, motivated, result):
    networks = [on_meta(name) for name in (base, motivated)]
    if isinstance(result, str):
        with pytest.raises(NestingError, match=f"^{result}"):
            map_weights(*networks)
        return
    weights_map = map_weights(*networks)
    assert bool(weights_map.sliced) is result
    assert {entry.base for entry in weights_map.entries} >= {name for name, _ in networks[0].named_parameters()}
