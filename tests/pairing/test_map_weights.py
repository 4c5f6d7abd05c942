"""The structural map's definition, for every family: without differential weights the motivated network is the base.

Norms that mix channels are the identity in both networks: their statistics change with the width.
"""

import pytest
import timm
import torch
from conftest import mlp
from networks import FAMILIES, vits
from structure import logits_of_both
from timm.layers import ScaledStdConv2d, StdConv2d
from torch import nn

from motivation.models import CifarResNet
from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError


@pytest.mark.parametrize("family", FAMILIES)
def test_motivated_network_without_differential_weights_is_the_base(family):
    networks, image_shape = FAMILIES[family]
    base, motivated = networks()
    weights_map = map_weights(base, motivated)
    assert weights_map.sliced or weights_map.differential_blocks
    ours, theirs = logits_of_both(base, motivated, weights_map, image_shape)
    scale = ours.abs().max()
    assert (ours - ours[:1]).abs().max() > 1e-3 * scale  # the logits tell the images apart
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10 * float(scale))


@pytest.mark.parametrize("layer", [StdConv2d, ScaledStdConv2d])
def test_standardised_weights_do_not_nest_across_widths(layer):
    """A weight less its own mean, over its own deviation: zeros beside it change both."""
    narrow, same, wide = (nn.Sequential(nn.Conv2d(3, width, 1), layer(width, 2 * width, 3), nn.AdaptiveAvgPool2d(1),
                                        nn.Flatten(), nn.Linear(2 * width, 5)) for width in (4, 4, 8))
    assert not map_weights(narrow, same).notes
    with pytest.raises(NestingError, match=r"but it is normalised over$"):
        map_weights(narrow, wide)


def test_recurrent_layers_are_one_operation():
    """Their gates and steps are not looked into: other sizes are refused, deeper stacks around them are not."""
    class Recurrent(nn.Module):
        def __init__(self, hidden, outer):
            super().__init__()
            self.stem, self.rnn = nn.Linear(6, 4), nn.LSTM(4, hidden, bidirectional=True, batch_first=True)
            self.inner, self.head = nn.Linear(2 * hidden, outer), nn.Linear(outer, 5)

        def forward(self, x):
            return self.head(self.inner(self.rnn(self.stem(x)[:, None])[0]).mean(1))

    assert map_weights(Recurrent(3, 4), Recurrent(3, 8)).sliced
    with pytest.raises(NestingError, match=r"^rnn\.weight_ih_l0: .*but it goes through a recurrent layer"):
        map_weights(Recurrent(3, 4), Recurrent(6, 4))


@pytest.mark.parametrize("heads", [False, True])
def test_what_a_wider_softmax_or_head_changes_is_named(heads):
    """Both pair, neither is exact: the note says which it is."""
    class Gate(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner, self.outer = nn.Linear(6, width), nn.Linear(width, 6)

        def forward(self, x):
            x = self.inner(x)
            return self.outer(x @ (x.transpose(0, 1) @ x) if heads else x.softmax(-1))

    [note] = map_weights(*(nn.Sequential(nn.Linear(6, 6), Gate(width)) for width in (4, 8))).notes
    assert note.startswith("4 in the base, 8 in the motivated network: it ")
    assert ("attention head" in note) is heads
    assert ("softmax" in note) is not heads


@pytest.mark.parametrize("family", ["vit", "gpt", "eva02", "resnext", "swin", "densenet"])
def test_literal_map_is_another_map(family):
    """Leading slices cut through q, k and v, groups, halves and concatenations: the base's function is lost."""
    networks, image_shape = FAMILIES[family]
    base, motivated = networks()
    weights_map = map_weights(base, motivated, "literal")
    assert all(dim.kind is None for entry in weights_map.entries for dim in entry.dims)
    ours, theirs = logits_of_both(base, motivated, weights_map, image_shape)
    assert (ours - theirs).abs().max() > 1e-3 * ours.abs().max()


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
