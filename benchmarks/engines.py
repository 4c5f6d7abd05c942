"""Speed of the engines against a bare eager float32 loop: ``motivation bench engines``.

Steps of `Engine.step` on random images, by engine, and a hand-written float32 loop take turns in one process, a block
of steps each; CPU and wall seconds a step are medians over the blocks, ratios are taken block by block. Compiling, a
fixed cost before step 0, is timed apart. Also the optimizer's step: fused, as recipes have it, against a compiled one.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from time import perf_counter, process_time

import torch
import torch.nn.functional as F
from torch.optim import SGD

from motivation.training.engine import Engine

CLASSES, SIZE = 10, 32
ENGINES = {"reference": {}, "bfloat16": {"precision": "bfloat16"}, "compile": {"compile": "default"},
           "compile, bfloat16": {"compile": "default", "precision": "bfloat16"}}


def network_of(name: str):
    """A network alone, or the motivated one of a pair."""
    from motivation.models import create_model, create_pair

    torch.manual_seed(0)
    pair = name.startswith("pair:")
    network = create_pair(*name[5:].split(","), CLASSES).motivated if pair else create_model(name, CLASSES)
    return network.to(memory_format=torch.channels_last).train()


def bare(name: str, images, targets) -> Callable[[], None]:
    """A step as one would write it by hand."""
    network = network_of(name)
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        loss.item()
    return step


def ours(name: str, images, targets, **options) -> Callable[[], None]:
    """A step of an engine."""
    network, engine = network_of(name), Engine(**options)
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    return lambda: engine.step(network, optimizer, F.cross_entropy, images, targets).tolist()


def take_turns(steps: dict[str, Callable[[], None]], blocks: int, count: int) -> None:
    """Print what a step takes, and the ratio to the first entry's."""
    first, taken = next(iter(steps)), {name: [] for name in steps}
    for name, step in steps.items():
        start = perf_counter()
        step()
        begun = perf_counter() - start
        if begun > 2:
            print(f"  {name}: first step {begun:.1f} s", flush=True)
        step()
    for _ in range(blocks):
        for name, step in steps.items():
            wall, cpu = perf_counter(), process_time()
            for _ in range(count):
                step()
            taken[name].append(((process_time() - cpu) / count, (perf_counter() - wall) / count))
    for name, seconds in taken.items():
        cpu, wall = (statistics.median(values) * 1e3 for values in zip(*seconds, strict=True))
        ratios = [base[0] / own[0] for base, own in zip(taken[first], seconds, strict=True)]
        print(f"  {name:20} CPU {cpu:8.2f} ms  wall {wall:8.2f} ms  {statistics.median(ratios):.2f} x {first} "
              f"({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def optimizer_steps(name: str) -> dict[str, Callable[[], None]]:
    """Updates alone: fused, foreach, and foreach compiled."""
    def update(compiled: bool = False, **how) -> Callable[[], None]:
        network = network_of(name)
        optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, **how)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        return torch.compile(optimizer.step) if compiled else optimizer.step

    return {"fused": update(fused=True), "foreach": update(foreach=True),
            "foreach, compiled": update(True, foreach=True)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["resnet20", "pair:resnet20,resnet32"])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps a block")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--optimizer", action="store_true", help="only the optimizer's step")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
          f"{torch.backends.cpu.get_cpu_capability()}, AMX {torch.cpu._is_amx_tile_supported()}")
    for name in options.networks:
        print(name, flush=True)
        if options.optimizer:
            take_turns(optimizer_steps(name), options.blocks, 50)
            continue
        images = torch.randn(options.batch, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        targets = torch.randint(0, CLASSES, (options.batch,))
        steps = {"bare": bare(name, images, targets)}
        steps |= {engine: ours(name, images, targets, device="cpu", **ENGINES[engine]) for engine in options.engines}
        take_turns(steps, options.blocks, options.steps)
    print(f"load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
