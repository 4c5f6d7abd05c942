"""Signals: requests inside one another, and runs in processes of their own that save and end with their parent."""

import functools
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from processes import finish

import motivation.run.signals
from motivation.run.jobs import Jobs, Stopped, Worker, run_for
from motivation.run.pool import Pool
from motivation.run.signals import Interrupted, StopRequest


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def _no_echo(monkeypatch):
    """Every second signal counts, however soon it comes."""
    monkeypatch.setattr(motivation.run.signals, "ECHO_SECONDS", -1)


def test_requests_inside_one_another_share_a_signal():
    with StopRequest() as outer:
        with StopRequest() as inner:
            send(signal.SIGUSR1)
            assert (outer.number, inner.number) == (signal.SIGUSR1, signal.SIGUSR1)
        with StopRequest() as later, pytest.raises(Interrupted) as error:
            later.check()
        assert error.value.number == signal.SIGUSR1
    with StopRequest() as fresh:
        assert fresh.number is None


@pytest.mark.usefixtures("_no_echo")
def test_a_second_signal_stops_at_once_except_in_a_worker(monkeypatch):
    with StopRequest(), StopRequest():
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
    with Worker(os.getppid()) as worker, StopRequest() as inside:
        send(signal.SIGINT)
        send(signal.SIGTERM)
    assert (worker.number, inside.number) == (signal.SIGINT, signal.SIGINT)


def test_jobs_without_a_process_to_wait_for_end_at_once():
    with Jobs(), pytest.raises(Interrupted) as error:
        send(signal.SIGTERM)
    assert error.value.number == signal.SIGTERM
    # A run in this very process saves first.
    with Jobs() as jobs, StopRequest() as run:
        send(signal.SIGTERM)
    assert (jobs.number, run.number) == (signal.SIGTERM, signal.SIGTERM)


def test_a_stopped_worker_begins_nothing():
    done = []
    worker = Worker(os.getppid())
    with worker:
        assert worker.do(lambda: done.append(1) or "a result") == "a result"
        send(signal.SIGTERM)
        assert worker.do(lambda: done.append(2)).number == signal.SIGTERM
    assert done == [1]
    # In the launcher's own process nothing is a value.
    with pytest.raises(Interrupted):
        run_for(os.getpid(), functools.partial(interrupted, signal.SIGINT))
    # A queue's job brings it back as its result, where one that has none is waited for.
    assert run_for(0, functools.partial(interrupted, signal.SIGINT)) == Stopped(signal.SIGINT, "")


def interrupted(number):
    raise Interrupted(number)


def job(name: str, folder: Path) -> None:
    """A run: it says that it has begun, and that it has saved when a signal came."""
    if name.startswith("quick"):
        return
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    with StopRequest() as stop:
        (folder / f"{name}.begun").write_text(str(os.getpid()))
        never = threading.Event()
        while stop.number is None:
            never.wait(0.01)
        (folder / f"{name}.saved").touch()
        interrupted(stop.number)


def begun(folder: Path, count: int) -> list[int]:
    """Wait for jobs to begin; their process ids."""
    clock = threading.Event()
    while len(files := [path for path in folder.glob("*.begun") if path.read_text()]) < count:
        clock.wait(0.02)
    return [int(path.read_text()) for path in files]


def gone(process: int) -> bool:
    try:
        # A zombie has ended; only its parent has not asked yet.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_signal_reaches_every_job_of_a_pool(tmp_path):
    """Quick ones share the processes of the others; one that is killed costs itself alone; no job begins later."""
    waiting = threading.Thread(target=lambda: (begun(tmp_path, 2), send(signal.SIGINT)), daemon=True)
    waiting.start()
    jobs = ["quick-0", "killed", "quick-1", "a", "b", "never"]
    with pytest.raises(Interrupted) as error, Jobs() as stop, Pool(2) as pool:
        list(pool.do_all(functools.partial(job, folder=tmp_path), jobs, stop))
    waiting.join()
    assert error.value.number == signal.SIGINT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.begun", "a.saved", "b.begun", "b.saved"]
    assert all(gone(process) for process in begun(tmp_path, 2))


def test_a_killed_process_costs_its_cell(tmp_path):
    with Jobs() as stop, Pool(2) as pool:
        told = dict(pool.do_all(functools.partial(job, folder=tmp_path), ["quick-0", "killed", "quick-1"], stop))
        started = len(pool._of)
    assert (told["quick-0"], told["quick-1"]) == (None, None)
    assert "ended by SIGKILL" in told["killed"]
    assert started <= 2


def parent(folder: Path) -> None:
    """A process that trains two jobs in processes of their own."""
    with Jobs() as stop, Pool(2) as pool:
        list(pool.do_all(functools.partial(job, folder=folder), ["a", "b"], stop))


def test_jobs_save_and_end_with_a_parent_that_is_killed(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=parent, args=(tmp_path,))
    process.start()
    jobs = begun(tmp_path, 2)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    clock = threading.Event()
    while not all(map(gone, jobs)):
        clock.wait(0.05)
    assert {"a.saved", "b.saved"} <= {path.name for path in tmp_path.iterdir()}
