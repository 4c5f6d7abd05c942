"""Differential blocks: identity changes no logit, or the pair says where it does; native and copy do what they say."""

import dataclasses
from functools import partial

import pytest
import timm
import torch
from conftest import snapshot
from networks import efficientnet, vits
from timm.layers import GroupNormAct, StdConv2d
from timm.models.metaformer import (
    Attention,
    GroupNorm1NoBias,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormer,
    SepConv,
)
from timm.models.resnetv2 import ResNetV2
from torch import nn

from motivation import Pair
from motivation.models import GPT, CifarResNet
from motivation.pairing.initialization import is_identity, logit_change
from motivation.pairing.map_weights import map_weights
from motivation.pairing.tracing.example import example_input


def scaled(name, base, motivated, **options):
    return [timm.create_model(name, num_classes=5, **options, **sizes) for sizes in (base, motivated)]


# Pairs that differ in depth alone, and the images they take.
DEEPER = {
    "resnet": (lambda: scaled("resnet18", {"layers": (1, 1, 1, 1)}, {"layers": (2, 1, 1, 3)}), (3, 32, 32)),
    "resnet bottleneck": (lambda: scaled("resnet50", {"layers": (1, 1, 1, 1)}, {"layers": (2, 2, 1, 1)}), (3, 32, 32)),
    "resnetv2": (lambda: scaled("resnetv2_50", {"layers": (1, 1, 1, 1)}, {"layers": (2, 2, 1, 1)}), (3, 32, 32)),
    "cifar resnet": (lambda: (CifarResNet(8, 5), CifarResNet(20, 5)), (3, 16, 16)),
    "efficientnet": (lambda: (efficientnet(1.0, 1.0), efficientnet(1.0, 2.0, seed=1)), (1, 16, 16)),
    "vit": (lambda: vits(16, 16, (1, 3), (2, 2)), (1, 8, 8)),
    "gpt": (lambda: (GPT(1, 32, 7), GPT(3, 32, 7)), (9,)),
    "vit with layer scale": (lambda: vits(16, 16, (1, 3), (2, 2), init_values=0.1), (1, 8, 8)),
    "convnext": (lambda: scaled("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
                                {"depths": (2, 1, 3, 1), "dims": (8, 8, 16, 16)}), (3, 32, 32)),
    "swin": (lambda: scaled("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)},
                            {"embed_dim": 8, "depths": (2, 4), "num_heads": (1, 2)}, img_size=32, window_size=4),
             (3, 32, 32)),
    "maxvit": (lambda: scaled("maxvit_pico_rw_256", {"depths": (1, 1, 1, 1)}, {"depths": (1, 2, 1, 1)}, img_size=64),
               (3, 64, 64)),
    "standardised weights": (lambda: [ResNetV2(layers, (32, 32, 64, 64), 5, conv_layer=StdConv2d, norm_layer=partial(
        GroupNormAct, num_groups=8)) for layers in ((1, 1, 1, 1), (2, 1, 1, 2))], (3, 32, 32)),
    "scaled stream": (lambda: [MetaFormer(num_classes=5, depths=depths, dims=(8, 8, 32, 32), norm_layers=[
        LayerNorm2dNoBias] * 2 + [LayerNormNoBias] * 2, token_mixers=[SepConv, SepConv, Attention, Attention])
        for depths in ((1, 1, 1, 1), (1, 2, 1, 3))], (3, 32, 32)),
    "scaled stream, no weights in the mixer": (lambda: [MetaFormer(num_classes=5, depths=depths, dims=(8,) * 4,
        norm_layers=GroupNorm1NoBias, layer_scale_init_values=None) for depths in ((1, 1, 1, 1), (1, 2, 1, 3))],
        (3, 32, 32)),
}


@pytest.mark.parametrize("name", DEEPER)
def test_identity_changes_no_logit(name):
    """The first expansion of a pair that differs in depth alone: the same logits bit for bit, and the pair says so."""
    networks, image_shape = DEEPER[name]
    torch.manual_seed(0)
    base, motivated = networks()
    before = snapshot(base)
    pair = Pair(base, motivated).eval()
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.state_dict().items())
    assert pair.weights_map.differential_blocks
    assert pair.notes == ()
    images = example_input(base, image_shape, 5, seed=0)
    with torch.no_grad():
        assert torch.equal(pair.base(images), pair.motivated(images))
    pair.motivated.train()
    pair.motivated(images).square().sum().backward()
    for block in pair.weights_map.differential_blocks:
        gradients = [p.grad for p in pair.motivated.get_submodule(block).parameters() if p.grad is not None]
        assert any(gradient.any() for gradient in gradients), block  # it starts to learn at once


class SiluAfterAddition(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return nn.functional.silu(x + self.conv(x))


class Blocks(nn.Module):
    def __init__(self, depth, block):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.stage = nn.Sequential(*(block() for _ in range(depth)))
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(self.stage(self.stem(x)).mean((2, 3)))


def test_pair_says_where_identity_is_not_exact():
    pair = Pair(Blocks(1, SiluAfterAddition), Blocks(3, SiluAfterAddition))
    [note] = pair.notes
    assert note.endswith("(an activation, a norm)")
    assert note.startswith("stage.1 (SiluAfterAddition) does not start as the identity: what follows the")
    images = torch.randn(2, 3, 4, 4)
    assert not torch.equal(pair.base(images), pair.motivated(images))
    assert not pair.motivated.stage[1].conv.weight.any()  # its branch still starts at zero


class NoSkip(SiluAfterAddition):
    def forward(self, x):
        return self.conv(x)


def test_pair_says_where_no_skip_is():
    [note] = Pair(Blocks(1, NoSkip), Blocks(2, NoSkip), weights_map="literal").notes
    assert note == "stage.1 (NoSkip) does not start as the identity: no skip around it was found"


def altered(activation=nn.ReLU, **norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation(), nn.BatchNorm1d(8, **norm), nn.Linear(8, 5))


def test_no_note_is_a_claim_that_was_tried():
    """What the literal map lets through and what one's own map leaves out: the logits show it, the pair says it."""
    changed = "the first expansion changes the logits of a random image by up to"
    assert Pair(altered(), altered()).notes == ()
    for base, motivated in ((altered(), altered(nn.GELU)), (altered(), altered(eps=0.1))):
        [note] = Pair(base, motivated, weights_map="literal").notes
        assert note.startswith(changed)
    base, motivated = CifarResNet(8, 5), CifarResNet(14, 5)
    whole = map_weights(base, motivated)
    for edited in (dataclasses.replace(whole, differential_blocks=(), nearest_blocks=()),
                   dataclasses.replace(whole, entries=tuple(e for e in whole.entries if "running" not in e.base))):
        [note] = Pair(CifarResNet(8, 5), CifarResNet(14, 5), weights_map=edited).notes
        assert note.startswith(changed)
    [note] = Pair(base, motivated, batch_norm="separate").notes
    assert note == "BatchNorm statistics are each network's own"


def test_what_cannot_be_tried_is_said():
    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2)

        def forward(self, x):
            raise RuntimeError("not today")

    [note] = Pair(Opaque(), Opaque()).notes
    assert note.startswith("whether the first expansion changes logits could not be checked: no image runs through "
                           "both networks; give image_shape=(C, H, W) (tried 2; RuntimeError: not today")
    with torch.device("meta"):
        [note] = Pair(CifarResNet(8, 5), CifarResNet(8, 5)).notes
    assert note.endswith("the networks hold no values (meta device)")


def test_trying_changes_nothing():
    """Modes, buffers, weights and random numbers are as before; start values that hide a difference do not hide it."""
    networks = altered(), altered(nn.GELU)
    for network in networks:
        nn.init.zeros_(network[-1].weight)
    networks[0][3].eval()
    before, modes = [snapshot(n) for n in networks], [m.training for n in networks for m in n.modules()]
    rng = torch.get_rng_state()
    entries = map_weights(*networks, "literal").entries
    assert logit_change(*networks, entries)
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for n in networks for m in n.modules()] == modes
    for network, saved in zip(networks, before, strict=True):
        assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())


def test_widths_are_noted():
    notes = Pair(*vits()).notes
    assert any(note.startswith("LayerNorm (blocks.0.norm1, ...) averages over more channels") for note in notes)
    assert any(note.startswith("widths differ") for note in notes)


def test_native_touches_nothing():
    base, motivated = CifarResNet(14, 5), CifarResNet(20, 5)
    before = snapshot(motivated)
    pair = Pair(base, motivated, init="native")
    block = pair.weights_map.differential_blocks[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in motivated.state_dict().items()
               if name.startswith(block))
    assert pair.notes == ("3 blocks start native",)


def test_copies_are_of_the_nearest_mapped_block():
    pair = Pair(CifarResNet(20, 5), CifarResNet(32, 5), init="copy")
    assert pair.weights_map.nearest_blocks[:2] == ("layer1.1", "layer1.4")
    for name, nearest in zip(pair.weights_map.differential_blocks, pair.weights_map.nearest_blocks, strict=True):
        ours, theirs = (pair.motivated.get_submodule(block).state_dict() for block in (name, nearest))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert not set(map(torch.Tensor.data_ptr, ours.values())) & set(map(torch.Tensor.data_ptr, theirs.values()))


def test_identity_needs_a_trace():
    class Opaque(Blocks):
        def forward(self, x):
            if x.shape[2] != 5:
                raise RuntimeError("5 x 5 images only")
            return super().forward(x)

    networks = Opaque(1, SiluAfterAddition), Opaque(2, SiluAfterAddition)
    before = snapshot(networks[1])
    with pytest.raises(ValueError, match=r"give image_shape=\(C, H, W\) \(tried .*5 x 5 images only"):
        Pair(*networks)
    assert all(torch.equal(tensor, before[name]) for name, tensor in networks[1].state_dict().items())
    assert Pair(*networks, image_shape=(3, 5, 5)).weights_map.differential_blocks == ("stage.1",)


def test_check_of_a_block_draws_no_random_numbers():
    state = torch.get_rng_state()
    block = nn.Linear(4, 4).requires_grad_(False)
    rng = torch.get_rng_state()
    assert not is_identity(block, (torch.empty(2, 4, device="meta"),), {})
    assert is_identity(nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), (torch.empty(2, 4, device="meta"),), {})
    assert torch.equal(torch.get_rng_state(), rng)
    torch.set_rng_state(state)
