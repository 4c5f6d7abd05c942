"""Each benchmark at its smallest size: its tables are whole, and its figures are what they are called."""

import itertools
import json
import math
import mmap

import numpy as np
import pytest
import torch
from motivation.benchmarks import (
    ELSEWHERE,
    SPEED,
    augmentation,
    checkpoints,
    evaluation,
    folders,
    jobs,
    logging,
    memory,
    monitors,
    noise,
    pairing,
    peak,
    processes,
    switch,
    training,
)
from motivation.benchmarks.table import UNMEASURED, Table
from motivation.benchmarks.turns import timed
from motivation.benchmarks.workload import write_images

from motivation.cli.main import main
from motivation.models import create_model
from motivation.run.machine import most_resident_memory, resident_memory
from motivation.training.ledger import forward_flops

GPU = torch.cuda.is_available()


class InThisProcess:
    """In place of `Apart`, whose process takes seconds to start."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def loop(self, device, make, *arguments):
        return timed(make(*arguments), device)

    def clear(self):
        pass


def checked(tables: list[Table]) -> list[Table]:
    """Whole tables, that say what was not measured."""
    for table in tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
        json.dumps(table.as_json(), allow_nan=False)
        if "device" in table.columns:
            assert ("cuda" in {row[0] for row in table.rows if None in row}) is not GPU
            assert (UNMEASURED in table.markdown()) is not GPU
        assert all(cell is None or isinstance(cell, str) or math.isnan(cell) or cell >= 0
                   for row in table.rows for cell in row)
    return tables


def measured(table: Table, *columns: str) -> list[tuple]:
    """Some columns of the rows that have figures."""
    places = [list(table.columns).index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in table.rows if None not in row]


def test_peak():
    """Both precisions; the figure is near that of a product timed here."""
    [table] = checked(peak.measure(seconds=0, largest=128))
    assert measured(table, "device", "precision", "rows")[:2] == [("cpu", "float32", 128), ("cpu", "bfloat16", 128)]
    matrix = torch.ones(128, 128)
    best = min(timed(lambda: torch.mm(matrix, matrix))(1) for _ in range(20))
    assert measured(table, "GFLOP/s")[0][0] < 20 * 2 * 128**3 / best / 1e9


def test_training(monkeypatch):
    """Loops of one network, shape and precision; ratios, FLOPs and shares follow from the steps a second."""
    monkeypatch.setattr(training, "Apart", InThisProcess)
    monkeypatch.setattr(training, "fastest", lambda device: ("bfloat16", "as on AMX"))
    monkeypatch.setattr(training, "peak", lambda *_: (1e12, 64))
    [table] = checked(training.measure(seconds=0, base="resnet8", motivated="resnet14", networks=["alone"],
                                       shapes=["launch-bound"], engines=["reference"]))
    rows = [row for row in measured(table, "precision", "loop", "steps/s", "x bare", "x torchvision", "GFLOP/s",
                                    "share of peak") if GPU is False]
    assert [row[:2] for row in rows] == [
        ("float32", "bare"), ("float32", "torchvision"), ("float32", "motivation, reference"), ("bfloat16", "bare"),
        ("bfloat16", "motivation, reference")]
    flops = 2 * 3 * forward_flops(create_model("resnet8", 10), (3, 8, 8))
    for _, _, speed, against_bare, against_usual, gflops, share in rows[:3]:
        assert against_bare == pytest.approx(speed / rows[0][2])
        assert against_usual == pytest.approx(speed / rows[1][2])
        assert gflops == pytest.approx(speed * flops / 1e9)
        assert share == pytest.approx(gflops / 1e3)
    [(text, held)] = table.bounds.items()
    assert f"lowest {min(rows[2][3], rows[4][3]):.3f}" in text
    assert held == (min(rows[2][3], rows[4][3]) >= 0.97)


def test_bfloat16_is_measured_where_the_hardware_is_made_for_it(monkeypatch):
    monkeypatch.setattr(training, "Apart", InThisProcess)
    monkeypatch.setattr(training, "fastest", lambda device: ("float32", "without it"))
    monkeypatch.setattr(training, "peak", lambda *_: (1e12, 64))
    [table] = checked(training.measure(seconds=0, base="resnet8", networks=["alone"], shapes=["launch-bound"],
                                       engines=["reference"]))
    assert {row[3] for row in table.rows if row[0] == "cpu" and None not in row} == {"float32"}
    assert [row[3] for row in table.rows if row[0] == "cpu" and None in row] == ["bfloat16"]


def test_compiling_is_measured_where_it_is_affordable():
    """On a CPU for one network and shape, in the precision that the hardware is made for; on a GPU everywhere."""
    everything = ("reference", "compile", "reduce-overhead")
    fastest = training.fastest("cpu")[0]
    other = "float32" if fastest == "bfloat16" else "bfloat16"
    for network, shape, precision, engines in (
            ("alone", "compute-bound", fastest, ["reference", "compile"]),
            ("alone", "compute-bound", other, ["reference"]), ("base", "compute-bound", fastest, ["reference"]),
            ("alone", "launch-bound", fastest, ["reference"])):
        assert training.engines_of(training.Case("cpu", network, shape, precision), everything) == engines
    case = training.Case("cuda", "base", "launch-bound", "float32")
    assert training.engines_of(case, everything) == list(everything)


@pytest.mark.parametrize("make", [
    lambda path: training.bare(path, "resnet8", 4, "cpu", "float32"),
    lambda path: training.bare(path, "resnet8", 4, "cpu", "bfloat16"),
    lambda path: training.usual(path, "resnet8", 4, "cpu")])
def test_the_loops_that_ours_is_compared_with_train(tmp_path, monkeypatch, make):
    """A step trains every weight, moves BatchNorm's statistics, and returns the loss of ten classes."""
    networks = []
    monkeypatch.setattr(training, "create_model", lambda *names: networks.append(create_model(*names)) or networks[-1])
    step = make(write_images(tmp_path / "images.npz", 8, 12))
    before = {name: tensor.clone() for name, tensor in networks[0].state_dict().items()}
    assert 1 < step() < 5
    assert all((tensor != before[name]).any() for name, tensor in networks[0].state_dict().items())


def test_memory(monkeypatch):
    """By depth a pair holds what its motivated network holds alone, by width more."""
    small = {"depth": ("resnet8", "resnet14", 2, 8, torch.optim.SGD)}

    def here(kind, device, pair, batch):
        base, motivated, images, size, optimizer = small[pair]
        return memory.train(kind, device, base, motivated, images, size, optimizer)

    monkeypatch.setattr(memory, "PAIRS", small)
    monkeypatch.setattr(memory, "most_resident_memory", itertools.count(step=2**20).__next__)
    monkeypatch.setattr(memory, "in_process", here)
    [table] = checked(memory.measure(seconds=0, pairs=["depth"]))
    [alone, pair] = measured(table, "trained", "weights and state, MiB")[:2]
    assert alone[0] == "resnet14 alone"
    assert pair[0] == "resnet8 and resnet14"
    network = create_model("resnet14", 10)
    weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    momentum = sum(tensor.nbytes for tensor in network.parameters())
    assert alone[1] * 2**20 == weights + momentum
    # BatchNorm counts its batches in each network.
    assert pair[1] == pytest.approx(alone[1], rel=0.01)


def test_the_peak_of_memory_stays_when_memory_is_freed():
    before = most_resident_memory()
    # Bytes that are not in memory now were so at the peak; mapped, since malloc may give out freed ones that it kept.
    size = before - resident_memory() + 32 * 2**20
    with mmap.mmap(-1, size) as mapped:
        np.frombuffer(mapped, np.uint8)[::mmap.PAGESIZE] = 1
    assert most_resident_memory() - before > 16 * 2**20


def test_switch():
    """By depth nothing is copied, which is a bound."""
    [table] = checked(switch.measure(seconds=0, batch=2, pairs=["cifar"]))
    [(name, step, milliseconds, copied, share)] = measured(table, "pair", "base step, s", "switch, ms", "copied, MiB",
                                                          "switch / base step")[:1]
    assert name == "resnet20 / resnet32"
    assert copied == 0
    assert share == pytest.approx(milliseconds / 1e3 / step)
    assert table.bounds["cpu, resnet20: by depth nothing is copied; 0 bytes"]


def test_monitors():
    """Every monitor and schedule, and each kind of probe against none."""
    scores, probes = monitors.measure(seconds=0, steps=40, shapes=["launch-bound"])
    checked([scores, probes])
    assert [row[1] for row in scores.rows] == [*noise.MONITORS, *noise.SCHEDULES]
    assert [reads for [reads] in measured(probes, "monitor reads")][:5] == list(monitors.PROBES)
    assert measured(probes, "x without a monitor")[0] == (1.0,)
    for name, make in list(monitors.PROBES.items())[2:]:
        assert make().needs == {name}


def test_logging():
    [table] = checked(logging.measure(seconds=0, trackers=["none"], steps=2))
    [(tracker, microseconds, low, high)] = measured(table, "tracker", "us a step", "lowest", "highest")[:1]
    assert tracker == "none"
    assert 0 < low <= microseconds <= high


def test_evaluation(monkeypatch):
    """The share is that of both networks' evaluation after an epoch of the data set's images."""
    monkeypatch.setitem(evaluation.SETTINGS, "digits", ("resnet8_14", 1000, 100, 8, 4))
    [table] = checked(evaluation.measure(seconds=0, recipes=["digits"], precisions=["float32"]))
    [(training_rate, base, motivated, *shares)] = measured(
        table, "training, images/s", "base, images/s", "motivated, images/s", "every epoch", "every 5 epochs")[:1]
    taken = 100 / base + 100 / motivated
    assert shares == pytest.approx([taken / (taken + epochs * 1000 / training_rate) for epochs in (1, 5)])


def test_checkpoints():
    [table] = checked(checkpoints.measure(seconds=0, every=1, batch=2))
    [(size, count)] = measured(table, "size, MiB", "checkpoints")[:1]
    assert count == 1
    # The pair, and AdamW's two moments of the base, which is all that one step trains.
    base, motivated = (sum(parameter.nbytes for parameter in create_model(name, 10).parameters())
                       for name in ("resnet20", "resnet32"))
    assert size * 2**20 == pytest.approx(motivated + 2 * base, rel=0.05)


def test_augmentation():
    [table] = checked(augmentation.measure(seconds=0, batch=4, recipes=["resnet_cifar"]))
    assert measured(table, "recipe", "batch", "px")[0] == ("resnet_cifar", 4, 32)


def test_folders():
    [table] = checked(folders.measure(seconds=0, workers=0, images=8, batch=2, batches=1))
    assert measured(table, "loader") == [("motivation",), ("timm",)]


def test_jobs(monkeypatch):
    """Numbers of jobs in turn; `cores` is one a core, at least two."""
    monkeypatch.setattr(jobs, "runs_an_hour", lambda table, number, seeds, overrides: 100.0 * int(number))
    monkeypatch.setattr(jobs, "cores", lambda: 1)
    [table] = checked(jobs.measure(seconds=0, jobs=[1, "cores"]))
    assert measured(table, "table", "--jobs", "runs/hour", "x --jobs 1") == [
        ("7", "1", 100.0, 1.0), ("7", "2", 200.0, 2.0)]


def test_processes(monkeypatch):
    """Each number of processes in turn; images a second for each of them, against one alone."""
    monkeypatch.setattr(processes, "images_a_second", lambda device, count, folder, overrides: 100 / count**0.5)
    monkeypatch.setattr(processes, "cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    [table] = processes.measure(seconds=0)
    assert measured(table, "device", "processes", "images/s for each", "x 1") == [
        ("cpu", "1", 100.0, 1.0), ("cpu", "4", 50.0, 0.5)]
    assert table.rows[-1][:2] == ("cuda", "all")
    assert table.bounds == {"cpu: each of several at least 0.85 of one alone; 0.500": False}


def test_noise():
    """Rates at the monitor's own level, near the nominal one."""
    table, shares = checked(noise.measure(steps=400, monitors=["consecutive"]))
    [(nominal, rate)] = measured(table, "nominal", "independent")
    assert nominal == pytest.approx(1 / 6)
    assert 0.05 < rate < 0.3
    assert dict(shares.rows)["periodic 6, 1"] == pytest.approx(1 / 6, abs=0.01)


def test_pairing(monkeypatch):
    """Refusals by the nature of two networks do not count against the bound; others do."""
    found = [(pairing.Neighbours("a", "b", "ResNet", "depth"), True),
             (pairing.Neighbours("b", "c", "ResNet", "design", "layers differ"), True),
             (pairing.Neighbours("c", "d", "ResNet", "other", "unknown"), True),
             (pairing.Neighbours("d", "e", "ResNet", ""), False)]
    monkeypatch.setattr(pairing, "all_neighbours", lambda pattern: iter(found))
    table, refused = pairing.measure()
    checked([table, refused])
    assert table.bounds == {"at least 95% of the 2 that could pair do; 50.0%": False}
    assert [row[:4] for row in refused.rows] == [("design", "b", "c", "layers differ"), ("other", "c", "d", "unknown")]
    assert "1 of 3 neighbours pair" in table.note
    assert "Not counted: 1" in table.note


@pytest.mark.soak
@pytest.mark.parametrize("name", [*SPEED, "pairing"])
def test_every_benchmark_runs_as_a_command(name, capsys):
    """With what the others replace: processes of its own, W&B offline, wide networks."""
    small = {"training": ("base=resnet8", "motivated=resnet14", "shapes=[launch-bound]"), "memory": ("batch=2",),
             "switch": ("batch=1",), "checkpoints": ("batch=2",), "pairing": ("pattern=resnet1*",)}
    seconds = () if name in ELSEWHERE else ("seconds=0",)
    assert main(["bench", name, *seconds, *small.get(name, ())]) in (0, 1)
    assert "| cpu" in capsys.readouterr().out or name in ("folders", "pairing")
