"""Runs that share a machine: how many cores and how much memory there are, and what processes are told of threads."""

import functools
import itertools
import os
import signal
import tempfile
from pathlib import Path

import joblib
import pytest
import torch
from conftest import compose_config

import motivation.run.machine
from motivation.run.jobs import Jobs
from motivation.run.machine import available_memory, cores, data_folder, resident_memory, thread_environment
from motivation.run.pool import Pool
from motivation.run.prepare import prepare


@pytest.fixture(params=[None, "1", "8", "3,2", "many"])
def given(request, monkeypatch):
    """OMP_NUM_THREADS as the user has set it."""
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    if request.param:
        monkeypatch.setenv("OMP_NUM_THREADS", request.param)
    return request.param


def test_processes_side_by_side_wait_passively_with_their_share_of_the_cores(given):
    before = dict(os.environ)
    with thread_environment(4):
        assert (os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"]) == ("PASSIVE", "0")
        # Fewer where the user says so, never more.
        assert os.environ["OMP_NUM_THREADS"] == {None: "4", "1": "1", "8": "4", "3,2": "3", "many": "4"}[given]
    with thread_environment(None):
        assert os.environ.get("OMP_NUM_THREADS") == given
    assert dict(os.environ) == before


def test_what_the_user_says_of_waiting_stays(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with thread_environment(2):
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def about_threads(job: int, folder: Path) -> None:
    """What a process was told, before and after it imported torch."""
    import torch

    (folder / str(job)).write_text(f"{torch.get_num_threads()} {os.environ['OMP_WAIT_POLICY']} {os.getpid()}")


def test_a_pools_processes_share_the_cores_and_start_early(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    with Pool(2, imports=["torch"]) as pool, Jobs() as stop:
        pool.start_all()
        early = {process.pid for process in pool._of.values()}
        assert dict(pool.do_all(functools.partial(about_threads, folder=tmp_path), range(4), stop)) == dict.fromkeys(
            range(4))
    told = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(told) == 4
    assert {(threads, policy) for threads, policy, _ in told} == {("1", "PASSIVE")}
    assert {int(process) for *_, process in told} <= early
    assert len(early) == 2


def test_processes_without_a_job_end_at_once():
    """Such as those of a table of which nothing is missing: they may still import."""
    with Pool(2, imports=["torch"]) as pool:
        pool.start_all()
        processes = list(pool._of.values())
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * len(processes)


def test_memory_is_the_least_of_machine_and_control_group(tmp_path, monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   2000 kB\n", "/proc/self/cgroup": "4:memory:/a\n0::/b\n"}
    monkeypatch.setattr(motivation.run.machine, "_read", lambda path: files.get(str(path)))
    assert available_memory() == 2000 * 1024
    # Version 2, in the process's own folder: what files keep in memory can be freed.
    files |= {"/sys/fs/cgroup/b/memory.max": "1000000\n", "/sys/fs/cgroup/b/memory.current": "400000\n",
              "/sys/fs/cgroup/b/memory.stat": "anon 1\ninactive_file 100000\n"}
    assert available_memory() == 700_000
    files["/sys/fs/cgroup/b/memory.max"] = "max\n"
    assert available_memory() == 2000 * 1024
    # Version 1, at the mount.
    files |= {"/sys/fs/cgroup/memory/memory.limit_in_bytes": "500000", "/sys/fs/cgroup/memory/memory.usage_in_bytes":
              "600000"}
    assert available_memory() == 0
    files.clear()
    assert available_memory() is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux says so")
def test_this_machine_says_what_it_has():
    assert 1 <= cores() <= os.cpu_count()
    assert resident_memory() > 0
    assert available_memory() > 0


@pytest.fixture
def _threads_kept():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads_kept")
def test_threads_change_rounding_and_nothing_else():
    """As docs/tables.md says; with as many threads, the bits are the same."""
    config = compose_config("tracker=none", "model=resnet20_32", "recipe.batch_size=64")
    losses = {}
    for name, threads in (("one", 1), ("again", 1), ("two", 2)):
        session = prepare(config | {"engine": config["engine"] | {"threads": threads}})
        for batch in itertools.islice(session.batches(), 2):
            session.step(*batch)
        losses[name] = [result.loss for _, result in session.pending]
    assert losses["one"] == losses["again"]
    assert losses["one"] == pytest.approx(losses["two"], rel=1e-4)


def test_data_folders_of_killed_commands_are_removed_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = tmp_path / "motivation-data-killed"
    killed.mkdir()
    (killed / "images.npy").write_text("")
    with data_folder() as first:
        # A command that has just begun may hold no lock yet.
        assert killed.exists()
        for folder in (killed, first):
            os.utime(folder, (0, 0))
        with data_folder() as second:
            assert sorted(tmp_path.iterdir()) == sorted((first, second))
    assert not list(tmp_path.iterdir())
