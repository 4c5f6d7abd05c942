"""Speed and memory of training against a bare PyTorch loop: ``motivation bench training``.

Speed: the loop of `motivation train` (loader, trainer, run folder, progress) and a hand-written loop take turns, a
block of steps each, in one process; the ratio of their steps/s is taken block by block. Same network, layout, optimizer
and batch size; ours crops and flips image by image, the bare loop batch by batch. With two images of 8 x 8 a step is
all launches: what is left of the ratio is the loop's own cost. Memory: what training adds to the
peak resident size of a process, for the pair (every other step motivated) and for the motivated network alone.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F

SPEED_BOUND, MEMORY_BOUND = 0.97, 1.03
IMAGES, SIZE, BATCH, CLASSES = 2560, 32, 128, 10
LAUNCH_BOUND = {"size": 8, "batch": 2}
ALONE = {"name": "classical", "network": "resnet20"}
PAIR = {"name": "pair", "base": "resnet20", "motivated": "resnet32"}


def config(path: Path, batch: int, **model):
    """A run on random images with the paper's ResNet recipe."""
    return {
        "seed": 0, "evaluate_every": 1, "model": model,
        "data": {"name": "arrays", "path": str(path)},
        "recipe": {"batch_size": batch, "epochs": 1000, "crop_padding": 4, "flip": True,
                   "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
                   "schedule": {"name": "cosine"}},
        "monitor": {"name": "consecutive"}, "schedule": {"name": "never"}, "engine": {}, "tracker": {"name": "none"},
    }


def write_images(path: Path, size: int):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    y = np.arange(IMAGES) % CLASSES
    np.savez(path, x_train=x, y_train=y, x_test=x[:128], y_test=y[:128])


def bare_loop(path: Path, batch: int):
    """What one would write by hand: crop and flip as slices, a fused optimizer, the loss read every step."""
    from motivation.models import CifarResNet

    torch.manual_seed(0)
    images = torch.from_numpy(np.load(path)["x_train"]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.load(path)["y_train"])
    mean = images.float().mean((0, 2, 3), keepdim=True)
    std = images.float().std((0, 2, 3), keepdim=True)
    network = CifarResNet(20, CLASSES).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    while True:
        order = torch.randperm(len(images))
        for indices in order[:len(order) // batch * batch].split(batch):
            x = F.pad(images[indices], (4, 4, 4, 4))
            top, left = torch.randint(0, 9, (2,)).tolist()
            x = x[:, :, top:top + images.shape[2], left:left + images.shape[3]]
            x = x.flip(3) if torch.rand(1) < 0.5 else x
            x = ((x.float() - mean) / std).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network(x), labels[indices])
            loss.backward()
            optimizer.step()
            yield loss.item()


def motivation_loop(path: Path, folder: Path, batch: int, **model):
    """The very steps that `motivation train` takes, recorded and shown."""
    from motivation.run.prepare import prepare
    from motivation.run.record import Record, record_steps
    from motivation.run_folder.write import RunFolder

    settings = config(path, batch, **model)
    session = prepare(settings)
    record = Record(session, RunFolder(folder, settings))
    for epoch in range(1000):
        session.position.epoch = epoch
        for images, targets in session.batches():
            session.step(images, targets)
            yield record_steps(session, record)


def measure_speed(blocks: int, steps: int) -> float:
    """Median ratio of steps/s, ours over the bare loop's; prints each kind of run's."""
    worst = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        for number, (label, model, shape) in enumerate((
                ("ResNet-20 alone", ALONE, {}), ("ResNet-20/32 pair, base phase", PAIR, {}),
                ("ResNet-20 alone, launch-bound", ALONE, LAUNCH_BOUND),
                ("ResNet-20/32 pair, launch-bound", PAIR, LAUNCH_BOUND))):
            path, batch = Path(folder) / f"{number}.npz", shape.get("batch", BATCH)
            write_images(path, shape.get("size", SIZE))
            loops = motivation_loop(path, Path(folder) / str(number), batch, **model), bare_loop(path, batch)
            for loop in loops:
                for _ in range(steps):
                    next(loop)
            ratios, rate = [], []
            for _ in range(blocks):
                seconds = []
                for loop in loops:
                    start = perf_counter()
                    for _ in range(steps):
                        next(loop)
                    seconds.append(perf_counter() - start)
                ratios.append(seconds[1] / seconds[0])
                rate.append(steps / seconds[0])
            ratio = statistics.median(ratios)
            worst = min(worst, ratio)
            print(f"{label:32} {statistics.median(rate):6.2f} steps/s  ratio to the bare loop: median {ratio:.3f} "
                  f"({min(ratios):.3f} to {max(ratios):.3f}, {blocks} blocks of {steps} steps)", flush=True)
    return worst


def peak_memory(kind: str) -> int:
    """Peak resident bytes of a process that trains 12 steps of a pair (half of them motivated), or one network."""
    result = subprocess.run([sys.executable, "-m", f"{__package__}.training", "--memory-of", kind],
                            capture_output=True, text=True, check=True)
    return int(result.stdout)


def train_for_memory(kind: str) -> None:
    from motivation.models import CifarResNet, create_pair
    from motivation.schedules import Schedule
    from motivation.training.trainer import Trainer

    class Alternating(Schedule):
        phase = "base"

        def decide(self, score):
            self.phase = "motivated" if self.phase == "base" else "base"
            return self.phase

    torch.manual_seed(0)
    model = CifarResNet(32, CLASSES) if kind == "motivated" else create_pair("resnet20", "resnet32", CLASSES)
    model = model.to(memory_format=torch.channels_last)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer = Trainer(model, lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9, fused=True),
                      F.cross_entropy, schedule=Alternating() if kind == "pair" else None)
    for _ in range(12):
        images = torch.randn(512, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        trainer.step(images, torch.randint(0, CLASSES, (512,)))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="steps a block")
    parser.add_argument("--memory-of", choices=["pair", "motivated"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        train_for_memory(options.memory_of)
        return 0
    speed = measure_speed(options.blocks, options.steps)
    pair, motivated = (statistics.median(peak_memory(kind) for _ in range(3)) for kind in ("pair", "motivated"))
    print(f"peak memory that training adds: pair {pair / 2**20:.0f} MiB, motivated network alone "
          f"{motivated / 2**20:.0f} MiB, ratio {pair / motivated:.3f}")
    missed = [text for text, bad in ((f"speed {speed:.3f} below {SPEED_BOUND}", speed < SPEED_BOUND),
                                     (f"memory {pair / motivated:.3f} above {MEMORY_BOUND}",
                                      pair > MEMORY_BOUND * motivated)) if bad]
    held = f"bounds held: speed >= {SPEED_BOUND}, memory <= {MEMORY_BOUND}"
    print("missed: " + "; ".join(missed) if missed else held)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
