"""What switching capacity costs: ``motivation bench switch``.

Sliced: a switch of ViT-Tiny/Small (every weight and AdamW's two moments) against one training step of the base, batch
64 at 224 px. Depth alone: the bytes that a switch copies. Building: the CPU seconds that making the pair takes beyond
creating its two networks. All on one thread and in CPU seconds, which is what the clock of a quiet machine shows.
"""

import argparse
import statistics
from time import process_time

import torch
import torch.nn.functional as F

from motivation import Pair
from motivation.models import create_model
from motivation.training.optimizer_state import SharedState, split_groups

SWITCH_BOUND, BUILD_BOUND = 0.01, 0.5
PAIRS = (("vit_tiny_patch16_224", "vit_small_patch16_224"), ("efficientnet_b0", "efficientnet_b1"),
         ("resnet50", "resnet101"), ("resnet20", "resnet32"))


def build_seconds(base: str, motivated: str) -> tuple[Pair, float]:
    networks = [create_model(name, 10) for name in (base, motivated)]
    start = process_time()
    return Pair(*networks), process_time() - start


def switch_seconds(pair: Pair, repeats: int, batch: int, size: int) -> tuple[float, float, int]:
    """Median CPU seconds of a base step and of a switch, and the bytes that a switch copies."""
    optimizers = [torch.optim.AdamW(groups, lr=1e-4, fused=True)
                  for groups in split_groups(pair, torch.nn.Module.parameters)]
    state = SharedState(pair, *optimizers)
    images, targets = torch.randn(batch, 3, size, size), torch.randint(0, 10, (batch,))
    steps, switches, copied = [], [], 0
    for _ in range(repeats):
        start = process_time()
        optimizers[0].zero_grad()
        F.cross_entropy(pair.base(images), targets).backward()
        optimizers[0].step()
        steps.append(process_time() - start)
        for expanding in (True, False, True, False):
            start = process_time()
            parts = (pair, state)
            copied = sum(part.expand() if expanding else part.contract() for part in parts)
            switches.append(process_time() - start)
    # The first switch of each direction lists what it copies, which happens once a run.
    return statistics.median(steps), statistics.median(switches[2:]), copied


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="training steps, with four switches after each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    missed = []
    for names in PAIRS:
        pair, seconds = build_seconds(*names)
        print(f"{' / '.join(names):48} built in {seconds:.2f} CPU s beyond its networks", flush=True)
        if seconds > BUILD_BOUND:
            missed.append(f"building {names[0]} {seconds:.2f} s above {BUILD_BOUND}")
        if names == PAIRS[0]:
            step, switch, copied = switch_seconds(pair, options.repeats, 64, 224)
            print(f"{'':48} step {step:.2f} s, switch {switch * 1000:.1f} ms ({copied / 2**20:.0f} MiB): "
                  f"{switch / step:.2%} of a step")
            if switch / step > SWITCH_BOUND:
                missed.append(f"switch {switch / step:.2%} of a step above {SWITCH_BOUND:.0%}")
        elif not pair.weights_map.sliced:
            _, _, copied = switch_seconds(pair, 2, 2, 32)
            print(f"{'':48} a switch copies {copied} bytes")
            if copied:
                missed.append(f"{names[0]} copies {copied} bytes")
    print("missed: " + "; ".join(missed) if missed else
          f"bounds held: switch <= {SWITCH_BOUND:.0%} of a step, nothing copied by depth, built in {BUILD_BOUND} s")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
