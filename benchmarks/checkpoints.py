"""How long training waits for its checkpoints: ``motivation bench checkpoints``.

The steps of `motivation train` with AdamW (three tensors a weight), with a checkpoint every 10 steps; the time inside
`Checkpoints.save` and in cutting the state, over all time. Files are written by a thread meanwhile. It trains for 20
seconds, and on to the next checkpoint.
"""

import tempfile
from pathlib import Path
from time import perf_counter

from .training import config, write_images

BOUND = 0.01


def main(seconds: float = 20, every: int = 10) -> int:
    """Print the share of time that training waited; 1 where it is above the bound."""
    from motivation.run.prepare import prepare
    from motivation.run_folder.checkpoints import Checkpoints, size_of

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        write_images(path)
        settings = config(path, name="pair", base="resnet20", motivated="resnet32")
        settings["recipe"]["optimizer"] = {"name": "adamw", "lr": 1e-3}
        settings["schedule"] = {"name": "threshold"}
        session = prepare(settings)
        checkpoints = Checkpoints(Path(folder) / "checkpoints")
        # As every run, it starts with a checkpoint of step 0, whose first copy allocates what later ones use again.
        checkpoints.save(session.state_dict(), 0)
        checkpoints.wait()
        waits, start = [], perf_counter()
        while not waits or perf_counter() - start < seconds:
            session.position.epoch = session.trainer.steps // len(session.loader)
            for images, targets in session.batches():
                session.step(images, targets)
                session.pending.clear()
                if session.trainer.steps % every == 0 and not checkpoints.busy:
                    before = perf_counter()
                    checkpoints.save(session.state_dict(), session.trainer.steps)
                    waits.append(perf_counter() - before)
                    if before - start > seconds:
                        break
        total = perf_counter() - start
        size = size_of(session.state_dict())
        checkpoints.close()
        written = len(checkpoints.found())
    share = sum(waits) / total
    print(f"a checkpoint of {size / 2**20:.1f} MiB every {every} steps: training waited {share:.2%} of {total:.0f} s "
          f"({sum(waits) / len(waits) * 1e3:.1f} ms each), {written} files stand")
    print(f"bound held: <= {BOUND:.0%}" if share <= BOUND else f"missed: above {BOUND:.0%}")
    return int(share > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
