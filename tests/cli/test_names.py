"""Folders and files of any name, given on the command line and printed by it."""

import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from commands import FAST, refused
from conftest import QUICK, compose_config

import motivation.run.run
from motivation.cli.compose import compose, name_paths
from motivation.cli.main import main
from motivation.cli.train import ask
from motivation.run_folder.write import new_folder

NAMES = ("my run", "lr=0.1", "a,b", "é", "run(1)", "it's", "2024_01_01")


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "+data.root", "data.path", "resume"])
@pytest.mark.parametrize(("value", "read"), [
    ("2024_01_01", "2024_01_01"), ("1e5", "1e5"), ("true", "true"), ("1.0", "1.0"), ("my run", "my run"),
    ("lr=0.1", "lr=0.1"), ("é", "é"), ("run(1)", "run(1)"), ("'a,b'", "a,b"), ("runs/${seed}", "runs/0")])
def test_names_of_files_and_folders_are_text(key, value, read):
    [given] = name_paths([f"{key}={value}"])
    config = compose(["data=arrays", given])
    for part in key.lstrip("+").split("."):
        config = config[part]
    assert config == read


def test_other_values_are_what_they_were():
    given = ["seed=1_0", "resume=null", "hydra.run.dir=", "resume=auto", "data.root=null", "--cfg", "-m"]
    assert name_paths(given) == given
    assert name_paths(["data.root=2024_01_01,null,x"]) == ['data.root="2024_01_01",null,x']


@pytest.mark.parametrize("name", NAMES)
def test_a_held_folder_says_how_to_resume_it(tmp_path, capsys, monkeypatch, name):
    """What is printed, pasted, resumes that run: it is finished, and says so."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"seed": 0}))
    monkeypatch.chdir(tmp_path)
    quoted = name.replace("'", r"\'")
    line = refused(capsys, "train", *QUICK, f"hydra.run.dir='{quoted}'")
    words = shlex.split(line.partition("resume it: ")[2])
    assert words[:2] == ["motivation", "train"]
    config, folder, resume, _ = ask(words[2:])
    assert (config, str(folder), resume) == ({"seed": 0}, name, True)


def test_jobs_of_one_second_have_a_folder_each(tmp_path):
    """However many start at once; a name that was chosen for one run is refused where it is held."""
    made = []
    jobs = [threading.Thread(target=lambda: made.append(new_folder(tmp_path / "day" / "run"))) for _ in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sorted(path.name for path in made) == ["run", *(f"run_{number}" for number in range(2, 9))]
    assert all(path.is_dir() for path in made)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be made"):
        new_folder(tmp_path / "file" / "run")


def test_only_a_folder_named_by_the_time_gets_a_suffix():
    """A name that was given is refused where it is held."""
    assert ask(["seed=3"])[3]
    assert ask(["hydra.run.dir=x"])[1:] == (Path("x"), False, False)


def test_two_sweeps_of_one_second(tmp_path, monkeypatch):
    """A refused sweep leaves no folder. The folder of configs may have any name too."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(motivation.run.run, "run", lambda config, path, *_: seen.append(path) or path)
    configs = tmp_path / "my confs, é (1) 50%=x"
    (configs / "experiment").mkdir(parents=True)
    (configs / "experiment" / "own.yaml").write_text("# @package _global_\nhydra:\n  sweep:\n"
                                                     "    dir: runs/${now:%Y}/sweep\n")
    sweep = ["train", "-m", "--config-dir", str(configs), "experiment=own", *FAST, "seed=0,1"]
    for _ in range(2):
        assert main(sweep) == 0
    assert [path.parent.name for path in seen] == ["sweep", "sweep", "sweep_2", "sweep_2"]
    assert main([*sweep, "recipe.nosuch=1"]) == 1
    assert sorted(path.name for path in (tmp_path / "runs").rglob("sweep*")) == ["sweep", "sweep_2"]


def test_a_run_of_the_first_ones_second(tmp_path):
    """The folder that was there is not touched."""
    config = compose_config(*QUICK, "model=resnet20", "recipe.epochs=null", "recipe.steps=2")
    first = tmp_path / "run"
    first.mkdir()
    folder = motivation.run.run.run(config, first, suffix=True)
    assert folder == tmp_path / "run_2"
    assert (folder / "summary.json").is_file()
    assert not any(first.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_in_any_encoding(monkeypatch, encoding):
    """A letter or sign that the encoding lacks is no error, and a printed path can be opened."""
    code = ("import sys\nfrom motivation.cli.main import main\nimport motivation.cli.commands as commands\n"
            "commands.compare = lambda options: print('91 ± 2', '日é') or 0\nsys.exit(main(['compare', 'x']))\n")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (b"91 \xc2\xb1 2 \xe6\x97\xa5\xc3\xa9\n" if encoding == "ascii" else
                           b"91 \xb1 2 \xe6\x97\xa5\xe9\n")
