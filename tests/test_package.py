"""The house: rooms, what no room may import, and a wheel that works from an empty directory."""

import ast
import os
import re
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


# The rooms, from the ground up: a file imports from its own floor's room or from lower floors only.
FLOORS = (
    ("command_line", "phase", "randomness", "validation", "registry", "run_folder", "accuracy", "tasks", "__init__"),
    ("monitors", "pairing", "data"),
    ("schedules", "models"),
    ("null",),
    ("training", "analysis"),
    ("levers",),
    ("run",),
    ("tables",),
    ("benchmarks",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Beside the floors: rooms that may not know one another, whatever their floors, and libraries that have one home.
APART = {"analysis": ("training", "pairing", "models"), "training": ("null", "analysis"), "pairing": ("data",),
         "monitors": ("pairing", "data")}
HOMES = {"hydra": ("cli",), "omegaconf": ("cli",), "wandb": ("run",), "wandb_workspaces": ("run",),
         "onnxruntime": ("run",)}


def room_of(module: str) -> str | None:
    """The room of a module of ours; None for any other."""
    package, _, rest = module.partition(".")
    return (rest.split(".")[0] or "__init__") if package == "motivation" else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    """design: no file imports from a higher floor, nor from another room of its own floor."""
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    others = {other for other in map(room_of, imports(file)) if other not in (None, room, "__init__")}
    beside = {other for other in others if FLOOR[other] == FLOOR[room] and FLOOR[room]}
    assert not {other for other in others if FLOOR[other] > FLOOR[room]} | beside
    assert not others & set(APART.get(room, ()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_libraries_have_one_home(file):
    room = file.relative_to(PACKAGE).parts[0]
    for library, homes in HOMES.items():
        assert room in homes or not reaches(file, library)
    if room in ("monitors", "schedules"):
        assert not reaches(file, "torch.nn", "torch.optim", "timm")
    assert file.stem not in ("utils", "util", "helpers", "helper", "common", "misc")


# Rooms that take plain arguments: the layers above know which key of a config an argument comes from.
BELOW_RUN = ("data", "levers", "models", "monitors", "null", "pairing", "run_folder", "schedules",
             "training")
KEY = re.compile(r"(?<![\w.])(recipe|data|engine|monitor|schedule|model|lever|hydra)\.(?=[a-z_])")


def texts_of_errors(tree: ast.AST) -> list[str]:
    """Text inside the raise statements of a file, in pieces where it is an f-string."""
    return [leaf.value for node in ast.walk(tree) if isinstance(node, ast.Raise) for leaf in ast.walk(node)
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)]


@pytest.mark.parametrize("file", [file for file in FILES if file.relative_to(PACKAGE).parts[0] in BELOW_RUN],
                         ids=lambda file: str(file.relative_to(PACKAGE)))
def test_errors_below_run_name_no_config_key(file):
    """design: they name the argument. An error may open with an entry of an argument, as in `schedule.name=...`."""
    tree = ast.parse(file.read_text())
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    # Fields of a dataclass are arguments too.
    arguments |= {ast.unparse(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}
    assert not [text for text in texts_of_errors(tree) for key in KEY.finditer(text)
                if key.start() or key[1] not in arguments]


def test_phase_is_defined_once():
    """Nowhere else does a file spell out the two phases as a type."""
    defining = {file.name for file in FILES for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal")
                and {leaf.value for leaf in ast.walk(node.slice) if isinstance(leaf, ast.Constant)}
                == {"base", "motivated"}}
    assert defining == {"phase.py"}


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
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # A plain path line shows the packages without running the editable install's own .pth.
    (site / "existing.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index",
                    "--disable-pip-version-check", wheel], check=True, timeout=200, env=environment)
    empty = tmp_path / "empty"
    empty.mkdir()
    where = subprocess.run([python, "-c", "import motivation, motivation.conf; print(motivation.__file__)"], cwd=empty,
                           env=environment, capture_output=True, text=True, check=True)
    assert Path(where.stdout.strip()).is_relative_to(site)
    result = subprocess.run([tmp_path / "venv" / "bin" / "motivation", "train", "tracker=none", "recipe.epochs=null",
                             "recipe.steps=1", "model.base=resnet8", "model.motivated=resnet14", "engine.threads=1",
                             "hydra.run.dir=run"], cwd=empty, env=environment, capture_output=True, text=True,
                            timeout=200)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "run\n"
    assert (empty / "run" / "summary.json").exists()
    listed = subprocess.run([tmp_path / "venv" / "bin" / "motivation", "bench", "--list"], cwd=empty, env=environment,
                            capture_output=True, text=True, check=True)
    assert "training" in listed.stdout
    # Tables find the scale that they share, in experiments/scales/.
    shared = subprocess.run([python, "-c", "from motivation.tables.spec import read_table; "
                             "print(*read_table('signals')['scales']['cpu']['data'])"], cwd=empty, env=environment,
                            capture_output=True, text=True, check=True)
    assert shared.stdout == "cifar10\n"
