"""The house: rooms, what no room may import, and a wheel that works from an empty directory."""

import ast
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "motivation"


def imports(file: Path) -> set[str]:
    """Modules a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def reaches(file: Path, *modules: str) -> list[str]:
    return [name for name in imports(file) for module in modules if name == module or name.startswith(module + ".")]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nevers(file):
    """design: monitors and schedules know no model; analysis never trains; Hydra and wandb have one room each."""
    room = file.relative_to(PACKAGE).parts[0]
    if room in ("monitors", "schedules"):
        assert not reaches(file, "torch.nn", "torch.optim", "timm", "hydra", "omegaconf", "wandb", "motivation.pair",
                           "motivation.trainer", "motivation.models", "motivation.train")
    if room == "analysis":
        assert not reaches(file, "motivation.trainer", "motivation.pair", "motivation.models", "motivation.train")
    if room == "weights_map.py":
        assert not reaches(file, "motivation.trainer")
    if room not in ("cli.py", "train.py"):
        assert not reaches(file, "hydra", "omegaconf")
    if room != "tracking.py":
        assert not reaches(file, "wandb")
    assert file.stem not in ("utils", "util", "helpers", "helper", "common", "misc")


def test_every_module_says_its_subject_in_its_first_line():
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_top_level_is_the_given_one():
    for name in ("conf", "motivation", "experiments", "tests", "notebooks", "setup.cfg", "README.md"):
        assert (ROOT / name).exists(), name


def test_wheel_works_in_a_clean_environment_from_an_empty_directory(tmp_path):
    """Built, installed with --no-deps beside the existing packages, run where no checkout is: conf/ came along."""
    checkout = tmp_path / "checkout"
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
                    "--disable-pip-version-check", "-w", tmp_path, checkout], check=True, timeout=200)
    [wheel] = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    paths = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                           capture_output=True, text=True, check=True)
    site = Path(paths.stdout.strip())
    # A plain path line shows the packages without running the editable install's own .pth.
    (site / "existing.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index",
                    "--disable-pip-version-check", wheel], check=True, timeout=200)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = subprocess.run([python, "-c", "import motivation, motivation.conf; print(motivation.__file__)"], cwd=empty,
                           env=environment, capture_output=True, text=True, check=True)
    assert Path(where.stdout.strip()).is_relative_to(site)
    result = subprocess.run([tmp_path / "venv" / "bin" / "motivation", "train", "tracker=none", "recipe.epochs=1",
                             "recipe.batch_size=256", "hydra.run.dir=run"], cwd=empty,
                            env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "run\n"
    assert (empty / "run" / "summary.json").exists()
    listed = subprocess.run([tmp_path / "venv" / "bin" / "motivation", "bench"], cwd=empty, env=environment,
                            capture_output=True, text=True, check=True)
    assert "training" in listed.stdout
