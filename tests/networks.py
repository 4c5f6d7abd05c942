"""Small pairs of timm's families for the tests: the smaller network, the larger, and the images both take."""

from functools import partial

import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from timm.models.regnet import RegNet, RegNetCfg
from torch import nn

from motivation.models import GPT


def vits(base: int = 8, motivated: int = 16, depths=(1, 2), heads=(2, 4), classes: int = 5, channels: int = 1,
         name: str = "vit_tiny_patch16_224", **options):
    """Two vision transformers for 8 x 8 images, heads of one width."""
    made = []
    for number, (width, depth, count) in enumerate(zip((base, motivated), depths, heads, strict=True)):
        torch.manual_seed(number)
        made.append(timm.create_model(name, num_classes=classes, in_chans=channels, img_size=8, patch_size=4,
                                      embed_dim=width, depth=depth, num_heads=count, **options))
    return tuple(made)


def efficientnet(width: float, depth: float, classes: int = 5, channels: int = 1, seed: int = 0) -> nn.Module:
    """A two-stage EfficientNet with squeeze-excite, for images from 8 x 8."""
    torch.manual_seed(seed)
    stages = decode_arch_def([["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r1_k3_s2_e4_c16_se0.25"]], depth)
    return EfficientNet(stages, num_classes=classes, in_chans=channels, stem_size=8, num_features=32,
                        round_chs_fn=partial(round_channels, multiplier=width), norm_layer=nn.BatchNorm2d)


def efficientnets():
    """Half as wide and half as deep, and the whole."""
    return efficientnet(1.0, 1.0), efficientnet(2.0, 2.0, seed=1)


def regnet(width: int, slope: float, group_width: int) -> nn.Module:
    """A RegNetY of four stages with 1, 1, 2 and 5 blocks, and 3, 8, 19 and 47 groups."""
    return RegNet(RegNetCfg(depth=9, w0=width, wa=slope, wm=2.5, group_size=group_width, se_ratio=0.25), num_classes=5)


def mixer(width: int, depth: int, **options) -> nn.Module:
    """An MLP-Mixer for 32 x 32 images in four patches."""
    return MlpMixer(num_classes=5, img_size=32, patch_size=16, num_blocks=depth, embed_dim=width, **options)


def _named(base: str, motivated: str, **options):
    return tuple(timm.create_model(name, num_classes=5, **options) for name in (base, motivated))


def _scaled(name: str, base: dict, motivated: dict, **options):
    return tuple(timm.create_model(name, num_classes=5, **options, **sizes) for sizes in (base, motivated))


_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 16), "stem_width": 8}
_WIDER = {"layers": (2, 1, 2, 1), "channels": (8, 16, 16, 16), "stem_width": 8}
_CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 16, 24)}
_LARGER_CONVNEXT = {"depths": (1, 1, 3, 1), "dims": (12, 24, 24, 40)}
_SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2), "img_size": 32, "window_size": 4}
_LARGER_SWIN = {"embed_dim": 16, "depths": (2, 4), "num_heads": (2, 4), "img_size": 32, "window_size": 4}

# name -> (the two networks, their images)
FAMILIES = {
    "resnet": (lambda: _scaled("resnet18", _RESNET, _WIDER), (3, 32, 32)),
    "resnet50": (lambda: _scaled("resnet50", _RESNET, _WIDER), (3, 32, 32)),
    "resnetv2": (lambda: _scaled("resnetv2_50", {"layers": (1, 1, 1, 1)}, {"layers": (1, 2, 1, 1)}), (3, 32, 32)),
    "wide_resnet": (lambda: _scaled("resnet50", _RESNET, {**_WIDER, "base_width": 128}), (3, 32, 32)),
    "resnext": (lambda: _scaled("resnext50_32x4d", {**_RESNET, "cardinality": 2, "base_width": 16},
                                {**_WIDER, "cardinality": 4, "base_width": 24}), (3, 32, 32)),
    "regnet": (lambda: (regnet(24, 60.0, group_width=8), regnet(48, 120.0, group_width=16)), (3, 32, 32)),
    "densenet": (lambda: _scaled("densenet121", {"block_config": (2, 2), "growth_rate": 4},
                                 {"block_config": (2, 4), "growth_rate": 8}), (3, 32, 32)),
    "efficientnet": (efficientnets, (1, 16, 16)),
    "efficientnetv2": (lambda: _named("tf_efficientnetv2_b0", "tf_efficientnetv2_b1"), (3, 32, 32)),
    "mobilenetv3": (lambda: _named("mobilenetv3_small_075", "mobilenetv3_small_100"), (3, 32, 32)),
    "convnext": (lambda: _scaled("convnext_tiny", _CONVNEXT, _LARGER_CONVNEXT), (3, 32, 32)),
    "convnextv2": (lambda: _scaled("convnextv2_tiny", _CONVNEXT, _LARGER_CONVNEXT), (3, 32, 32)),
    "vit": (lambda: vits(), (1, 8, 8)),
    "gpt": (lambda: (GPT(1, 32, 7), GPT(3, 64, 7)), (9,)),
    "vit with registers": (lambda: vits(reg_tokens=2, init_values=0.1, qk_norm=True), (1, 8, 8)),
    "deit": (lambda: vits(name="deit_tiny_distilled_patch16_224"), (1, 8, 8)),
    "deit3": (lambda: vits(name="deit3_small_patch16_224"), (1, 8, 8)),
    "beit": (lambda: vits(name="beit_base_patch16_224"), (1, 8, 8)),
    "eva02": (lambda: vits(name="eva02_tiny_patch14_224"), (1, 8, 8)),
    "swiglu": (lambda: vits(12, 24, name="vit_giant_patch14_reg4_dinov2", reg_tokens=0, init_values=None), (1, 8, 8)),
    "relative positions": (lambda: vits(name="vit_relpos_small_patch16_224"), (1, 8, 8)),
    "swin": (lambda: _scaled("swin_tiny_patch4_window7_224", _SWIN, _LARGER_SWIN), (3, 32, 32)),
    "swinv2": (lambda: _scaled("swinv2_tiny_window8_256", _SWIN, _LARGER_SWIN), (3, 32, 32)),
    "mixer": (lambda: (mixer(8, 1), mixer(12, 2)), (3, 32, 32)),
    "resmlp": (lambda: (mixer(8, 1, block_layer=ResBlock, norm_layer=Affine, mlp_ratio=4),
                        mixer(12, 2, block_layer=ResBlock, norm_layer=Affine, mlp_ratio=4)), (3, 32, 32)),
    "maxvit": (lambda: _scaled("maxvit_pico_rw_256", {"depths": (1, 1, 1, 1)}, {"depths": (1, 2, 1, 1)},
                               img_size=64), (3, 64, 64)),
    "coatnet": (lambda: _scaled("coatnet_nano_rw_224", {"depths": (1, 1, 1, 1), "embed_dim": (64, 96, 128, 128)},
                                {"depths": (1, 2, 1, 2), "embed_dim": (64, 128, 192, 192)}, img_size=64), (3, 64, 64)),
    "ghostnet": (lambda: _named("ghostnet_050", "ghostnet_100"), (3, 32, 32)),
    "hgnet": (lambda: _named("hgnetv2_b0", "hgnetv2_b1"), (3, 32, 32)),
}
