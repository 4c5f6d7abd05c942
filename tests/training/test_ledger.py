"""FLOPs: what the literature gives, what the counter does not touch, and totals that add up."""

from time import perf_counter

import pytest
import timm
import torch
from torch import nn

from motivation.models import create_model
from motivation.training.ledger import Ledger, Stopwatch, forward_flops


@pytest.mark.parametrize(("name", "megaflops"), [("resnet20", 81.10), ("resnet32", 137.73)])
def test_forward_flops_of_the_cifar_resnets(name, megaflops):
    """The contract's own counts, 2 per multiply-add (the paper prints 82.82 and 140.13)."""
    assert forward_flops(create_model(name, 10), (3, 32, 32)) / 1e6 == pytest.approx(megaflops, abs=0.005)


def test_forward_flops_by_hand():
    """A convolution and a dense layer, counted by hand."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert forward_flops(network, (3, 6, 6)) == 2 * (4 * 36 * 27) + 2 * (4 * 36 * 5)


class OffMeta(nn.Module):
    """The network, which cannot run on the meta device: its forward reads a value."""

    def __init__(self, network, read=torch.Tensor.tolist):
        super().__init__()
        self.network, self.read = network, read

    def forward(self, images):
        self.read(images)
        return self.network(images)


class OfTokens(nn.Module):
    """A layer of sequences ``(N, pixels, channels)``, for images."""

    def __init__(self, layer, repeat=1):
        super().__init__()
        self.layer, self.repeat = layer, repeat

    def forward(self, images):
        out = self.layer(*[images.flatten(2).transpose(1, 2)] * self.repeat)
        return out[0] if isinstance(out, tuple) else out


# FLOPs by hand, of 64 tokens of 16 channels: projections to q, k, v and out, scores and their use.
ATTENTION = 4 * 2 * 64 * 16 * 16 + 2 * 2 * 64 * 64 * 16
LAYERS = {
    "MultiheadAttention": (lambda: OfTokens(nn.MultiheadAttention(16, 2, batch_first=True), 3), ATTENTION),
    "TransformerEncoderLayer": (lambda: OfTokens(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)),
                                ATTENTION + 2 * 2 * 64 * 16 * 32),
    "LSTM": (lambda: OfTokens(nn.LSTM(16, 8, batch_first=True)), 2 * 64 * (16 + 8) * 4 * 8),
    "GRU": (lambda: OfTokens(nn.GRU(16, 8, batch_first=True)), 2 * 64 * (16 + 8) * 3 * 8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_are_one_kernel_count_on_the_meta_device_and_off_it(name):
    make, flops = LAYERS[name]
    assert forward_flops(make(), (16, 8, 8)) == forward_flops(OffMeta(make()), (16, 8, 8)) == flops


@pytest.mark.parametrize(("name", "options"), [
    ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "depth": 2}),
    ("swin_tiny_patch4_window7_224", {"img_size": 32, "patch_size": 2, "window_size": 4, "depths": (1, 1, 1, 1)}),
    ("cait_xxs24_224", {"img_size": 32, "patch_size": 4, "depth": 2}),
    ("xcit_nano_12_p16_224", {"img_size": 32, "depth": 2}),
    ("pvt_v2_b0", {}), ("maxvit_pico_rw_256", {"img_size": 32}), ("efficientformer_l1", {}),
    ("mobilevit_xxs", {}), ("levit_128s", {}), ("convnext_atto", {}), ("tinynet_e", {}), ("resmlp_12_224", {}),
])
def test_families_count_alike_on_the_meta_device_and_off_it(name, options):
    with torch.device("meta"):
        on_meta = create_model(name, 10, **options)
    shape = (3, 32, 32) if "img_size" in options else timm.get_pretrained_cfg(name).input_size
    assert forward_flops(on_meta, shape) == forward_flops(OffMeta(create_model(name, 10, **options)), shape) > 1e6


@pytest.mark.parametrize("read", [torch.Tensor.tolist, torch.Tensor.numpy, lambda images: int(images.sum()),
                                  lambda images: images + torch.zeros(1)])
def test_networks_off_the_meta_device_are_counted(read):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    assert forward_flops(OffMeta(network, read), (1, 8, 8)) == forward_flops(network, (1, 8, 8)) == 2 * 64 * 5


def test_counting_restores_torchs_kernels():
    def kernels():
        return (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled,
                torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled())

    before = kernels()
    assert all(before)
    forward_flops(OffMeta(nn.Conv2d(1, 1, 1)), (1, 4, 4))
    with pytest.raises(ValueError, match="cannot take an image"):
        forward_flops(nn.Conv2d(1, 1, 1), (2, 4, 4))
    assert kernels() == before


@pytest.mark.parametrize("wrap", [nn.Sequential, OffMeta])
def test_counting_changes_nothing(wrap):
    """Neither weights nor statistics nor training mode, module by module, nor what is frozen, nor the random state."""
    network = wrap(create_model("resnet20", 10))
    resnet = network[0] if wrap is nn.Sequential else network.network
    resnet.layer2.eval()
    resnet.layer1.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    trained = [parameter.requires_grad for parameter in network.parameters()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    forward_flops(network, (3, 8, 8))
    assert modes == [module.training for module in network.modules()]
    assert trained == [parameter.requires_grad for parameter in network.parameters()]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_totals_and_state_round_trip():
    ledger = Ledger()
    assert ledger.totals()["budget/forward_per_image"] == 0
    assert ledger.record("base", 10, 100, 0.5) == 3000
    assert ledger.record("motivated", 10, 300, 1.0) == 9000
    assert ledger.totals() == {"budget/flops": 12000, "budget/forward_per_image": 200.0, "budget/images": 20,
                               "budget/seconds": 1.5, "budget/bytes_copied": 0, "steps/base": 1, "steps/motivated": 1,
                               "intervals": 1}
    other = Ledger()
    other.load_state_dict(ledger.state_dict())
    ledger.record("motivated", 10, 300, 1.0)
    other.record("motivated", 10, 300, 1.0)
    assert other == ledger
    assert other.intervals == 1


def test_charges_are_part_of_the_next_step():
    """By kind, in the FLOPs of the step and of its phase; the paper's F leaves them out."""
    ledger = Ledger()
    ledger.charge("scoring", 50)
    ledger.charge("scoring", 20)
    ledger.charge("reference", 500)
    ledger.charge("teacher", 0)
    assert ledger.record("motivated", 10, 100, 0.5) == 3570
    assert ledger.record("base", 10, 100, 0.5) == 3000
    totals = ledger.totals()
    assert totals["budget/flops"] == 6570
    assert {key for key in totals if key.endswith("_flops")} == {"budget/scoring_flops", "budget/reference_flops"}
    assert (totals["budget/scoring_flops"], totals["budget/reference_flops"]) == (70, 500)
    assert totals["budget/forward_per_image"] == 100
    other = Ledger()
    other.load_state_dict(ledger.state_dict())
    assert other == ledger
    kinds = "probe, scoring, reference, rollout, teacher, student"
    with pytest.raises(ValueError, match=f"kind='sleep': must be one of {kinds}"):
        ledger.charge("sleep", 1)


class Event:
    """A GPU's event: it is reached when the GPU gets there, which `reach` says."""

    def __init__(self, enable_timing):
        assert enable_timing
        self.reached, self.stream = None, None

    def record(self, stream):
        self.stream = stream

    def query(self):
        return self.reached is not None

    def synchronize(self):
        assert self.stream == "stream"
        if self.reached is None:
            self.reached = 9000.0

    def elapsed_time(self, other):
        """Milliseconds."""
        return other.reached - self.reached


def test_seconds_of_a_gpu_are_its_own(monkeypatch):
    """The host is far ahead: a step's seconds come when the GPU has finished it, at the latest with the totals."""
    made = []
    monkeypatch.setattr(torch.cuda, "Event", lambda **options: made.append(Event(**options)) or made[-1])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    ledger = Ledger()
    for phase in ("base", "motivated"):
        ledger.record(phase, 2, 10, Stopwatch(torch.device("cuda")).stop())
    assert ledger.seconds == {"base": 0, "motivated": 0}
    for event, reached in zip(made, (1000.0, 3000.0, 4000.0), strict=False):
        event.reached = reached
    ledger.settle(wait=False)
    assert ledger.seconds == {"base": 2.0, "motivated": 0}
    other = Ledger()
    other.load_state_dict(ledger.state_dict())
    assert other.seconds == ledger.seconds == {"base": 2.0, "motivated": 5.0}
    assert ledger.totals()["budget/seconds"] == 7.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
def test_seconds_of_a_real_gpu_are_its_own():
    """A stopwatch waits for work that the host has only launched."""
    device = torch.device("cuda")
    large = torch.rand(8192, 8192, device=device)
    torch.cuda.synchronize()
    stopwatch = Stopwatch(device)
    for _ in range(20):
        large = large @ large
    launched = perf_counter()
    seconds = stopwatch.stop().seconds()
    assert seconds > 0.5 * (perf_counter() - launched) > 0
