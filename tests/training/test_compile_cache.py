"""Libraries of torch.compile whose compilation was killed are removed from the cache, and no others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from motivation.training.compile_cache import remove_killed_builds


@pytest.fixture
def cache(tmp_path):
    """Of two libraries, the first of which was killed."""
    for name in ("aa/killed.main", "aa/whole.main"):
        library = tmp_path / f"{name}.so"
        library.parent.mkdir(exist_ok=True)
        library.write_text("half")
    (tmp_path / "aa" / "killed.main_CxxBuild").mkdir()
    (tmp_path / "locks").mkdir()
    return tmp_path


def test_a_killed_library_goes_and_a_whole_one_stays(cache):
    assert remove_killed_builds(cache) == [cache / "aa" / "killed.main.so"]
    assert [path.name for path in (cache / "aa").iterdir()] == ["whole.main.so"]
    assert remove_killed_builds(cache) == []


def test_what_another_process_compiles_now_stays(cache):
    with FileLock(cache / "locks" / "killed.lock"):
        assert remove_killed_builds(cache) == []
    assert (cache / "aa" / "killed.main.so").exists()


def test_there_need_not_be_a_cache(tmp_path):
    assert remove_killed_builds(tmp_path / "none") == []


PROGRAM = """
import torch
from motivation.training import compiled
torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
arguments = torch.ones(4, 8), torch.nn.functional.cross_entropy, torch.tensor([0, 1, 2, 0])
compiled.call(compiled.batch_loss, "default", True, network, *arguments).backward()
assert compiled.is_compiled(network, "default")
"""


@pytest.mark.soak
def test_a_run_compiles_after_one_that_was_killed_while_it_compiled(tmp_path):
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, start_new_session=True)
    while not (built := [path for path in tmp_path.glob("*/*_CxxBuild") if ".main" in path.name]):
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)  # The compiler too.
    first.wait()
    # As far as the linker had come; its moment cannot be met.
    Path(str(built[0]).replace("_CxxBuild", ".so")).write_bytes(b"\x7fELF")
    assert subprocess.run([sys.executable, "-c", PROGRAM], env=environment).returncode == 0
