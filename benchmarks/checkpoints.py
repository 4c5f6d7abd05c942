"""How long training waits for its checkpoints: ``motivation bench checkpoints``.

The steps of `motivation train` with AdamW (three tensors a weight), with a checkpoint every 25 steps; the time inside
`Checkpoints.save` and in cutting the state, over all time. Files are written by a thread meanwhile.
"""

import tempfile
from pathlib import Path
from time import perf_counter

from .training import config, write_images

BOUND = 0.01


def main(steps: int = 100, every: int = 25) -> int:
    """Print the share of time that training waited; 1 where it is above the bound."""
    from motivation.checkpoint import Checkpoints, size_of
    from motivation.train import prepare

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        write_images(path)
        settings = config(path, name="pair", base="resnet44", motivated="resnet56")
        settings["recipe"]["optimizer"] = {"name": "adamw", "lr": 1e-3}
        settings["schedule"] = {"name": "threshold"}
        session = prepare(settings)
        checkpoints = Checkpoints(Path(folder) / "checkpoints")
        waited, start = 0.0, perf_counter()
        while session.trainer.steps < steps:
            session.position.epoch = session.trainer.steps // len(session.loader)
            for _ in session.steps():
                if session.trainer.steps % every == 0 and not checkpoints.busy:
                    before = perf_counter()
                    checkpoints.save(session.state_dict(), session.trainer.steps)
                    waited += perf_counter() - before
        total = perf_counter() - start
        size = size_of(session.state_dict())
        checkpoints.close()
        written = len(checkpoints.found())
    share = waited / total
    print(f"a checkpoint of {size / 2**20:.1f} MiB every {every} steps: training waited {share:.2%} of {total:.0f} s "
          f"({waited / (steps // every) * 1e3:.1f} ms each), {written} files stand")
    print(f"bound held: <= {BOUND:.0%}" if share <= BOUND else f"missed: above {BOUND:.0%}")
    return int(share > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
