"""The machine that several runs share: its cores and memory, and how many threads each of them takes."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# In the temporary folder, and locked as long as its command runs.
DATA_FOLDER, LOCK = "motivation-data-", "in-use"
# Control groups of Linux: where they are mounted, by version, the limit, the use, and what of that can be freed.
MOUNT = Path("/sys/fs/cgroup")
GROUPS = ((MOUNT, "memory.max", "memory.current", "inactive_file"),
          (MOUNT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))


def cores() -> int:
    """Cores that this process may use: its affinity and its control group can grant fewer than there are."""
    import joblib

    return joblib.cpu_count()


@contextmanager
def thread_environment(threads: int | None) -> Iterator[None]:
    """Context in which processes are started that run side by side.

    Their threads wait passively: those of OpenMP look for work in a busy loop by default, and take the cores from the
    other processes. The libraries read these variables when they are loaded, so that this process does not change.

    Args:
        threads: of each process, unless the environment asks for fewer; None leaves their number alone.
    """
    wanted = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    before = {name: os.environ.get(name) for name in (*wanted, "OMP_NUM_THREADS")}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    if threads is not None:
        # It may be a list, one number a level of nesting.
        given = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))
        os.environ["OMP_NUM_THREADS"] = str(min(threads, int(given[0])) if given else threads)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def data_folder() -> Iterator[Path]:
    """Context of the folder in which one command's processes share data sets; it is removed at the end.

    Those of commands that were killed are removed first.
    """
    from filelock import FileLock, Timeout

    for left in Path(tempfile.gettempdir()).glob(f"{DATA_FOLDER}*"):
        # A younger one may not be locked yet. Another user's cannot be removed.
        with suppress(Timeout, OSError):
            if time.time() - left.stat().st_mtime > 60:
                with FileLock(left / LOCK, timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
    with (tempfile.TemporaryDirectory(prefix=DATA_FOLDER, ignore_cleanup_errors=True) as folder,
          FileLock(Path(folder, LOCK))):
        yield Path(folder)


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, of the machine and of this process's control group; None where neither
    says so.
    """
    free = []
    if (meminfo := _read(Path("/proc/meminfo"))) and (found := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.M)):
        free.append(int(found[1]) * 1024)
    # Inside a container its own group is at the mount; outside, it is a folder below.
    of_process = re.findall(r"^\d+:(?:memory)?:(/.*)$", _read(Path("/proc/self/cgroup")) or "", re.M)
    for mount, limit, use, freeable in GROUPS:
        for folder in {mount, *(mount / path.lstrip("/") for path in of_process)}:
            most, now = _read(folder / limit), _read(folder / use)
            if most and now and most.strip().isdigit():
                cache = re.search(rf"^{freeable} (\d+)$", _read(folder / "memory.stat") or "", re.M)
                free.append(int(most) - int(now) + (int(cache[1]) if cache else 0))
    return max(0, min(free)) if free else None


def resident_memory() -> int | None:
    """Bytes of this process in memory now; None where the system does not say."""
    pages = _read(Path("/proc/self/statm"))
    return int(pages.split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages else None


def most_resident_memory() -> int | None:
    """Bytes of this process that were in memory at most; None where the system does not say.

    That of getrusage is its parent's where that is more.
    """
    status = _read(Path("/proc/self/status"))
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)[1]) * 1024 if status else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
