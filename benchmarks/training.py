"""Steps a second by engine and precision, against a bare loop and a loop with torchvision and DataLoader.

Loops take turns, a block of steps each; ours in one process, the others in another one. All train one network with SGD
on random images with crop and flip, and read the loss of every step. *bare*: written by hand for speed, images on the
device, crop and flip by batch, channels-last, fused SGD, the precision by autocast. *torchvision*: as it is usually
written, PIL images through torchvision's transforms in two DataLoader workers, and torch's defaults. *motivation*:
`motivation train` by engine, with its loader, trainer, run folder and progress, which crops and flips image by image.

*x bare*: steps/s over those of the bare loop of the same network, shape and precision, the median over blocks, and the
lowest and highest. *GFLOP/s*: 3 x forward a step, 2 FLOPs a multiply-add; *share of peak*: of the matrix products of
this device in float32 or the step's precision, whichever are faster. *compiled in*: the first step, with an
empty cache. Shapes: 128 images of 32 x 32, where arithmetic takes the time; 2 of 8 x 8, where the launching of
kernels does. On a CPU bfloat16 is measured where the hardware is made for it.
"""

import itertools
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from motivation.models import create_model
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops
from motivation.training.precision import AUTOCAST, fastest
from motivation.validation import NotNegative

from .apart import Apart
from .peak import peak
from .table import Table
from .turns import RATIO, ratios, take_turns, timed
from .workload import CLASSES, DEVICES, SHAPES, config_of, is_here, training_steps, write_images

BOUND = 0.97
Step = Callable[[], object]
Engine = Literal["reference", "compile", "reduce-overhead"]
MODES = {"reference": "null", "compile": "default", "reduce-overhead": "reduce-overhead"}
# What trains: the choice of the config, and the network that trains in it.
NETWORKS = {
    "alone": (("model=classical", "model.network={base}"), "base"),
    "base": (("model=resnet20_32", "model.base={base}", "model.motivated={motivated}", "schedule=never"), "base"),
    "motivated": (("model=resnet20_32", "model.base={base}", "model.motivated={motivated}", "schedule=always"),
                  "motivated"),
}


def bare(path: Path, network: str, batch: int, device: str, precision: str) -> Step:
    """A step as one would write it by hand for speed."""
    arrays = np.load(path)
    images = torch.from_numpy(arrays["x_train"]).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(arrays["y_train"]).to(device)
    mean, std = images.float().mean((0, 2, 3), keepdim=True), images.float().std((0, 2, 3), keepdim=True)
    model = create_model(network, CLASSES).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(images), device=device)
            yield from order[:len(order) // batch * batch].split(batch)

    chosen = batches()

    def step() -> float:
        indices = next(chosen)
        x = F.pad(images[indices], (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        x = x[:, :, top:top + images.shape[2], left:left + images.shape[3]]
        x = x.flip(3) if torch.rand(1) < 0.5 else x
        x = ((x.float() - mean) / std).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext():
            loss = F.cross_entropy(model(x).float(), labels[indices])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class Images(Dataset):
    """Images of an .npz as PIL images, through a transform: torchvision's CIFAR data sets.

    Args:
        path: of the .npz.
        transform: PIL image -> tensor.
    """

    def __init__(self, path: Path, transform: Callable[[Image.Image], torch.Tensor]):
        arrays = np.load(path)
        self.images, self.labels, self.transform = arrays["x_train"], arrays["y_train"], transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def usual(path: Path, network: str, batch: int, device: str) -> Step:
    """A step as it is usually written."""
    from torchvision.transforms import v2

    size = np.load(path)["x_train"].shape[1]
    transform = v2.Compose([v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip(), v2.ToImage(),
                            v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.25,) * 3)])
    loader = DataLoader(Images(path, transform), batch, shuffle=True, num_workers=2, drop_last=True,
                        persistent_workers=True, pin_memory=device == "cuda")
    model = create_model(network, CLASSES).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step() -> float:
        images, labels = (tensor.to(device, non_blocking=True) for tensor in next(batches))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class Case(NamedTuple):
    """What the loops of a row have in common."""

    device: str
    network: str
    shape: str
    precision: str


def engines_of(case: Case, chosen: tuple[Engine, ...]) -> list[Engine]:
    """Engines of ours that are measured: on a CPU, where a network takes a minute to compile, it is compiled alone, in
    one shape, and in the precision that the hardware is made for.
    """
    if case.device == "cuda":
        return list(chosen)
    compiles = (case.network, case.shape, case.precision) == ("alone", "compute-bound", fastest("cpu")[0])
    return [engine for engine in chosen if engine == "reference" or (engine == "compile" and compiles)]


def section(apart: Apart, case: Case, engines: tuple[Engine, ...], names: dict[str, str],
            seconds: float) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Loops take turns; returns as `take_turns`."""
    batch, size = SHAPES[case.shape]
    overrides, phase = NETWORKS[case.network]
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        # Compiled anew, whatever earlier runs compiled.
        opened.enter_context(mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(folder / "compiled")))
        opened.callback(apart.clear)
        path, device = write_images(folder / "images.npz", size), case.device
        loops = {"bare": apart.loop(device, bare, path, names[phase], batch, device, case.precision)}
        if case.precision == "float32":
            loops["torchvision"] = apart.loop(device, usual, path, names[phase], batch, device)
        for engine in engines_of(case, engines):
            config = config_of(
                path, "recipe=resnet_cifar", f"recipe.batch_size={batch}", "recipe.epochs=1000",
                *(override.format(**names) for override in overrides), f"engine.device={device}",
                f"engine.precision={case.precision}", f"engine.compile={MODES[engine]}")
            loops[f"motivation, {engine}"] = timed(training_steps(opened, folder / engine, config), device)
        return take_turns(loops, seconds)


def measure(seconds: NotNegative = 40, base: str = "resnet20", motivated: str = "resnet32",
            networks: tuple[Literal["alone", "base", "motivated"], ...] = ("alone", "motivated"),
            shapes: tuple[Literal["compute-bound", "launch-bound"], ...] = tuple(SHAPES),
            precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16"),
            engines: tuple[Engine, ...] = ("reference", "compile", "reduce-overhead")) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all, without compiling.
        base: the smaller network.
        motivated: the larger one.
        networks: which train: the smaller one alone (in bfloat16 on a CPU only that), a pair's motivated one; or its
            base, whose step differs from ``alone`` by the schedule's decision only.
        shapes: 128 images of 32 x 32, or 2 of 8 x 8.
        precisions: of the bare loop and ours.
        engines: of ours; ``compile`` on a CPU for ``alone`` only, ``reduce-overhead`` on a GPU only.
    """
    table = Table("Training", {
        "device": "", "network": "", "shape": "", "precision": "", "loop": "", "steps/s": ".2f", "x bare": ".3f",
        **RATIO, "x torchvision": ".2f", "GFLOP/s": ",.1f", "share of peak": ".1%", "compiled in, s": ".1f"}, [])
    names = {"base": base, "motivated": motivated}
    here = [case for case in itertools.starmap(Case, itertools.product(filter(is_here, DEVICES), networks, shapes,
                                                                       precisions))
            if case.precision == "float32" or case.device == "cuda"
            or (case.network == "alone" and fastest("cpu")[0] == "bfloat16")]
    # Where bfloat16 is emulated, float32 is what the machine can do.
    peaks = {(device, precision): max(peak(device, one, min(2, seconds))[0] for one in {"float32", precision})
             for device, precision in {(case.device, case.precision) for case in here}}
    worst = math.inf
    with Apart() as apart:
        for case in here:
            rates, first = section(apart, case, engines, names, seconds / len(here))
            (batch, size), trained = SHAPES[case.shape], names[NETWORKS[case.network][1]]
            flops = batch * TRAINING_FORWARDS * forward_flops(create_model(trained, CLASSES), (3, size, size))
            label = f"{trained} alone" if case.network == "alone" else f"{trained} in a pair"
            for name, values in rates.items():
                speed, against_bare = statistics.median(values), ratios(values, rates["bare"])
                against_usual = ratios(values, rates["torchvision"])[0] if "torchvision" in rates else math.nan
                table.rows.append((case.device, label, case.shape, case.precision, name, speed, *against_bare,
                                   against_usual, flops * speed / 1e9,
                                   flops * speed / peaks[case.device, case.precision],
                                   first[name] if "compile" in name or "reduce" in name else math.nan))
                if name == "motivation, reference":
                    worst = min(worst, against_bare[0])
    for device in DEVICES:
        for precision in precisions:
            if not any((case.device, case.precision) == (device, precision) for case in here):
                table.unmeasured(device, "all", "all", precision, "all")
    if worst < math.inf:
        table.bounds[f"engine reference at least {BOUND} x bare everywhere; lowest {worst:.3f}"] = worst >= BOUND
    return [table]
