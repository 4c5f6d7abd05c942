"""Memory that a step frees is kept for the next one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux" or "LD_PRELOAD" in os.environ, reason="glibc's malloc alone")

# Faults of asking for 16 MiB again and again; each page is touched.
PROGRAM = """
import resource, torch
from motivation.training.allocator import keep_freed_memory
print(keep_freed_memory())
def work():
    for _ in range(20):
        torch.ones(3, 2**20).exp()
        torch.ones(5, 2**20)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment):
    """What the program prints in a process of its own: a malloc's settings last as long as its process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    said, count = subprocess.run([sys.executable, "-c", PROGRAM], env=clean | environment, check=True,
                                 capture_output=True, text=True).stdout.split()
    return said, int(count)


def test_freed_memory_is_asked_for_without_page_faults():
    said, count = faults()
    assert said == "True"
    # Every page anew would be 20 * 44 MiB / 4 KiB = 225,280.
    assert count < 1000


def test_what_the_environment_says_stays():
    assert faults(MALLOC_MMAP_THRESHOLD_="131072")[0] == "False"
