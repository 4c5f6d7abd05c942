"""The command line: what it prints where, its exit status, and errors of one line."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from commands import FAST, command, refused
from conftest import QUICK

from motivation.cli.main import main
from motivation.command_line import resume_command
from motivation.run_folder.config import read_config

SHORT = (*FAST, "recipe.steps=2", "recipe.epochs=null")


def test_help_is_instant_and_imports_nothing_heavy():
    """Best of three under half a second of CPU time, each in a new process."""
    times = []
    for _ in range(3):
        before = os.times()
        result = command("--help")
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert result.returncode == 0
    assert "train" in result.stdout
    assert "compare" in result.stdout
    assert min(times) < 0.5


def test_import_is_light():
    """`import motivation` and its public names load neither wandb, hydra, matplotlib nor sklearn."""
    code = ("import sys, motivation\n"
            "assert 'torch' not in sys.modules\n"
            "motivation.Pair, motivation.Trainer, motivation.create_pair, motivation.monitors, motivation.schedules\n"
            "heavy = {'wandb', 'hydra', 'omegaconf', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
            "assert set(motivation.__all__) <= set(dir(motivation))\n")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_unknown_public_name_is_an_attribute_error():
    import motivation

    with pytest.raises(AttributeError, match="no attribute 'Pear'"):
        _ = motivation.Pear


def test_train_as_a_process_then_compare(tmp_path, capsys):
    """The last line of stdout is the run folder, nothing else is there; compare ends with the figure."""
    result = command("train", *SHORT, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert "epoch 1/1" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert main(["compare", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| runs")
    assert lines[-1] == "compare.png"
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def test_default_run_folder_names_its_choices(tmp_path, capsys):
    assert main(["train", *SHORT, "seed=3", "schedule=never"]) == 0
    folder = capsys.readouterr().out.strip()
    assert folder.startswith("runs/")
    assert folder.endswith("resnet8_14_never_seed3")
    assert (tmp_path / folder / "summary.json").exists()


def test_multirun_trains_every_job_and_names_the_failed(tmp_path, capsys):
    """A failed job does not end the sweep; good folders on stdout, one line a failed job on stderr, status 1."""
    status = main(["train", "-m", *SHORT, "schedule.k=2,0,3", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    captured = capsys.readouterr()
    assert status == 1
    assert captured.out.splitlines() == [str(tmp_path / "sweep" / job) for job in ("0", "2")]
    errors = [line for line in captured.err.splitlines() if line.startswith("motivation: error")]
    assert len(errors) == 1
    assert "schedule.k=0" in errors[0]
    assert "must be at least 1" in errors[0]
    assert not (tmp_path / "sweep" / "1").exists()
    assert main(["train", "-m", *SHORT, "seed=0,1", "model=resnet20", f"hydra.sweep.dir={tmp_path / 'two'}"]) == 0
    assert [json.loads((tmp_path / "two" / job / "summary.json").read_text())["seed"] for job in "01"] == [0, 1]


@pytest.mark.parametrize(("overrides", "message"), [
    (["seed=abc"], "seed=.?abc"),
    (["recpie.epochs=3"], "recpie.epochs: .* recipe.epochs"),
    (["+recpie.epochs=3"], "recpie: .*recipe"),
    (["zzz=3"], "zzz: .*--cfg job"),
    (["model=resnet21"], "model=resnet21: .*resnet20"),
    (["model.base=resnet21"], "model.base=resnet21: .*resnet20"),
    (["schedule.k=0"], "schedule.k=0.*at least 1"),
    (["data=arrays"], "data.path"),
    (["data=arrays", "data.path=nowhere.npz"], "data.path=nowhere.npz"),
    (["data=cifar10"], "data.download=.*download=true"),
    (["data=arrays", f"data.path={__file__}"], "data.path=.*test_main.py: no .npz"),
    (["recipe.batch_size=2000"], "1150"),
    (["seed=0,1"], "--multirun"),
    (["+model._target_=os.system"], "model._target_: .*refused"),
    (["recipe.epochs=${nothing}"], "nothing"),
    (["seed"], "seed"),
    (["--config-dir", "nowhere"], "nowhere: no such folder"),
    (["--config-path", "nowhere"], "--config-path"),
    (["-m", "hydra.run.dir=x", "seed=0,1"], "hydra.run.dir.*hydra.sweep.dir"),
    (["-m", "zzz=1,2"], "zzz: unknown key"),
    (["-m", "resume=run", "seed=0,1"], "resume=auto"),
])
def test_bad_overrides_are_one_line_and_leave_nothing(tmp_path, capsys, overrides, message):
    line = refused(capsys, "train", "tracker=none", *overrides)
    assert re.search(message, line), line
    assert not [path for path in tmp_path.rglob("*") if path.name != "multirun.yaml" and path.is_file()]


def test_run_folder_under_a_file_or_held(tmp_path, capsys, finished):
    held = finished()
    capsys.readouterr()
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, "train", *QUICK, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert re.search("is a file; .*hydra.run.dir=PATH", line)
    line = refused(capsys, "train", *QUICK, f"hydra.run.dir={held}")
    assert "already holds a run (config.yaml); choose another with hydra.run.dir=PATH" in line
    assert line.endswith(resume_command(held))
    assert (tmp_path / "file").read_text() == "mine"


def test_compare_refuses_what_is_no_run(tmp_path, capsys):
    assert "no such run folder" in refused(capsys, "compare", "nowhere")


def test_own_configs_from_a_folder(tmp_path, capsys):
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    recipe = "batch_size: 256\nepochs: null\nsteps: 2\noptimizer: {name: sgd, lr: 0.1}\n"
    (tmp_path / "mine" / "recipe" / "short.yaml").write_text(recipe)
    assert main(["train", "--config-dir", "mine", "recipe=short", "tracker=none", "hydra.run.dir=out"]) == 0
    assert capsys.readouterr().out == "out\n"


def test_train_help_and_config_are_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    assert "motivation train -m seed=0,1,2" in capsys.readouterr().out
    assert main(["train", "--cfg", "job", "schedule.k=7"]) == 0
    assert "k: 7\n" in capsys.readouterr().out


def test_unknown_command_is_refused(capsys):
    for arguments, named in ((["trian"], "'trian'"), (["train", "--bogus"], "--bogus"), (["compare"], "RUN"),
                             (["table", "7", "--bogus"], "--bogus")):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        [line] = capsys.readouterr().err.splitlines()
        assert re.match(f"motivation: error: .*{named}.*; see motivation.* --help$", line)


@pytest.mark.soak
def test_killed_run_left_what_happened(tmp_path):
    """SIGKILL in mid-training: steps.csv and epochs.jsonl hold whole rows, without a gap, of all that was done."""
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-m", "motivation", "train", "tracker=none", "recipe.epochs=500",
                                "engine.threads=1", f"hydra.run.dir={folder}"], stderr=subprocess.PIPE, text=True)
    assert any("epoch 3/500" in line for line in process.stderr)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    rows = (folder / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(len(rows)))
    header, *steps = (folder / "steps.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in steps] == list(range(len(steps)))
    assert len(steps) >= 17 * len(rows)
    assert all(row.count(",") == header.count(",") for row in steps)
    assert not (folder / "summary.json").exists()


def config_folder(tmp_path, **experiments):
    """A --config-dir with these experiments."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    for name, text in experiments.items():
        (tmp_path / f"conf/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    return "--config-dir", str(tmp_path / "conf")


def test_the_environment_is_resolved_and_written_down(tmp_path, capsys, monkeypatch):
    """A run's config holds the value: a resume does not depend on the variable, nor does another machine."""
    monkeypatch.setenv("PLACE", str(tmp_path / "data"))
    assert main(["train", *SHORT, "data.root=${oc.env:PLACE}", "data=cifar10",
                 f"hydra.run.dir={tmp_path / 'run'}"]) == 1
    assert str(tmp_path / "data") in capsys.readouterr().err
    monkeypatch.setenv("STEPS", "1")
    assert main(["train", *SHORT, "recipe.steps='${oc.decode:${oc.env:STEPS}}'",
                 f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert read_config(tmp_path / "run")["recipe"]["steps"] == 1
    assert "oc.env" not in (tmp_path / "run/config.yaml").read_text()


def test_a_config_file_that_is_no_yaml_is_named(tmp_path, capsys):
    line = refused(capsys, "train", *config_folder(tmp_path, mine="a: b: c"), "experiment=mine")
    assert "experiment/mine.yaml" in line
    assert "unexpected" not in line


def test_hydras_part_may_name_a_folder_by_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert main(["train", *SHORT, "hydra.run.dir=${oc.env:SCRATCH}/run"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'scratch/run'}\n"


def test_a_refused_sweep_changes_nothing(tmp_path, capsys):
    sweep = tmp_path / "sweep"
    line = refused(capsys, "train", "-m", *FAST, "model=resnet20,nosuch", f"hydra.sweep.dir={sweep}")
    assert "model=nosuch" in line
    assert not sweep.exists()
    sweep.mkdir()
    (sweep / "multirun.yaml").write_text("mine")
    assert "holds a sweep" in refused(capsys, "train", "-m", *FAST, "seed=0,1", f"hydra.sweep.dir={sweep}")
    assert (sweep / "multirun.yaml").read_text() == "mine"
    assert "no such folder" in refused(capsys, "train", "-m", *FAST, "--config-dir", str(tmp_path / "none"))


@pytest.mark.parametrize(("overrides", "said"), [
    (["experiment=demo"], "motivation train -m"),
    (["recipe.optimizer={name:adamw,betas:[0.9]}"], "recipe.optimizer.betas: .*+recipe.optimizer.betas"),
    (["data={_target_:a}"], "data._target_: .*refused"),
    (["recipe.optimizer.name=adamw"], "recipe.optimizer.momentum: .*null"),
    (["hydra.run.dir=null"], "hydra.run.dir"),
    (["hydra.run.dir=''"], "hydra.run.dir=''"),
    (["model=resnet20", "model.network=vit_tiny_patch16_224"], "VisionTransformer"),
    (["model=resnet20", "+model.options={depth:8}"], "model: "),
    (["model.base=resnet44"], "model: layer1: 7 blocks"),
    (["data.validation=0.0001"], "data.validation=0.0001"),
    (["recipe.batch_size=5000"], "recipe.batch_size=5000.*1150"),
    (["engine.device=mps"], "engine.device='mps'"),
    (["+recipe.optimizer.nesterov=3"], "recipe.optimizer sgd: "),
    (["recipe.schedule.warmup_epochs=100"], "recipe.schedule.warmup_epochs=100"),
    (["resume=nowhere"], "nowhere"),
    (["--cfg", "job", "model=nosuch"], "model=nosuch"),
])
def test_mistakes_are_named_in_one_line(tmp_path, capsys, overrides, said):
    folder = () if any("run.dir" in override or "resume" in override for override in overrides) else (
        f"hydra.run.dir={tmp_path / 'run'}",)
    line = refused(capsys, "train", *FAST, *folder, *overrides)
    assert re.search(said.replace("+", r"\+"), line), line
    assert not list(tmp_path.iterdir())


def test_resume_from_the_command_line(tmp_path, capsys):
    """resume=RUN reads the folder's own config; the same command with resume=auto finds its folder again."""
    assert main(["train", *SHORT, "seed=5", "resume=auto"]) == 0
    folder = capsys.readouterr().out.strip()
    rows = (tmp_path / folder / "steps.csv").read_bytes()
    assert main(["train", *SHORT, "seed=5", "resume=auto"]) == 0
    assert capsys.readouterr().out.strip() == folder
    assert main(["train", f"resume={folder}", "recipe.steps=3"]) == 0
    assert capsys.readouterr().out.strip() == folder
    assert (tmp_path / folder / "steps.csv").read_bytes().startswith(rows)
    line = refused(capsys, "train", f"resume={folder}", "recipe.optimizer.lr=0.3")
    assert re.search("recipe.optimizer.lr.*0.1.*0.3", line)


def test_resume_auto_under_multirun(tmp_path, capsys):
    sweep = ["train", "-m", *SHORT, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}", "resume=auto"]
    assert main(sweep) == 0
    first = capsys.readouterr().out
    (tmp_path / "sweep/1/summary.json").unlink()
    assert main(sweep) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "sweep/1/summary.json").exists()


def test_pair_prints_where_each_tensor_lies(capsys, tmp_path):
    assert main(["pair", "resnet20", "resnet32", "--classes", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == ["", "tensor of A", "shape in A", "tensor of B",
                                                               "slice of B", "kept by", ""]
    [row] = [line.split() for line in lines if line.startswith("| layer1.2.conv1.weight")]
    assert "layer1.4.conv1.weight" in row
    assert row[-2] == "alias"
    assert lines[-3].startswith("A has 269,722 parameters, 58.1% of B's 464,154; a switch copies 0 values")
    assert lines[-2].startswith("only B has 6 blocks: layer1.2, layer1.3, ")
    assert lines[-1] == "the first expansion changes no logit (in evaluation mode)"
    saved = tmp_path / "map.json"
    assert main(["pair", "vit_tiny_patch16_224", "vit_small_patch16_224", "--json", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "(3 x 192 of 384, 192 of 384)" in out
    assert "- LayerNorm (blocks.0.norm1, ...) averages over more channels in the motivated network" in out
    assert len(json.loads(saved.read_text())["entries"]) == 152


def test_pair_refuses_in_one_line(capsys):
    line = refused(capsys, "pair", "resnet18", "resnet50")
    assert re.search("layer1.0: .*BasicBlock.*Bottleneck", line)
    assert "'resnet19x'" in refused(capsys, "pair", "resnet19x", "resnet50")
    assert "'middle'" in refused(capsys, "pair", "resnet20", "resnet32", "--depth-rule", "middle")
