"""The command line: what it prints where, its exit status, and errors of one line."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import FAST, command, refused
from conftest import QUICK

from motivation.cli.main import main


def test_help_is_instant_and_imports_nothing_heavy():
    """Best of five under half a second, in a process of its own."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        result = command("--help")
        times.append(time.perf_counter() - start)
    assert result.returncode == 0
    assert "train" in result.stdout
    assert "compare" in result.stdout
    assert min(times) < 0.5


def test_bench_lists_and_runs_the_benchmarks(capsys, monkeypatch):
    """Every file of benchmarks/ is listed, and a name runs its own command line."""
    assert main(["bench"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    folder = Path(__file__).parents[2] / "benchmarks"
    assert listed == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert main(["bench", "switch", "--help"]) == 0
    assert "--repeats" in capsys.readouterr().out
    assert "there are augmentation, checkpoints, folders, monitors" in refused(capsys, "bench", "nothing")


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


def test_train_and_compare_as_processes(tmp_path):
    """The last line of stdout is the run folder, nothing else is there; compare ends with the figure."""
    result = command("train", *FAST, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'run'}\n"
    assert "epoch 1/1" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    result = command("compare", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith("| runs")
    assert result.stdout.splitlines()[-1] == "compare.png"
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def test_default_run_folder_names_its_choices(tmp_path, capsys):
    assert main(["train", *FAST, "seed=3", "schedule=never"]) == 0
    folder = capsys.readouterr().out.strip()
    assert folder.startswith("runs/")
    assert folder.endswith("resnet20_32_never_seed3")
    assert (tmp_path / folder / "summary.json").exists()


def test_multirun_trains_every_job_and_names_the_failed(tmp_path, capsys):
    """A failed job does not end the sweep; good folders on stdout, one line a failed job on stderr, status 1."""
    status = main(["train", "-m", *FAST, "schedule.k=2,0,3", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    captured = capsys.readouterr()
    assert status == 1
    assert captured.out.splitlines() == [str(tmp_path / "sweep" / job) for job in ("0", "2")]
    errors = [line for line in captured.err.splitlines() if line.startswith("motivation: error")]
    assert len(errors) == 1
    assert "schedule.k=0" in errors[0]
    assert "must be at least 1" in errors[0]
    assert not (tmp_path / "sweep" / "1").exists()
    assert main(["train", "-m", *FAST, "seed=0,1", "model=resnet20", f"hydra.sweep.dir={tmp_path / 'two'}"]) == 0
    assert [json.loads((tmp_path / "two" / job / "summary.json").read_text())["seed"] for job in "01"] == [0, 1]


@pytest.mark.parametrize(("overrides", "message"), [
    (["seed=abc"], "seed='abc': must be an integer"),
    (["recpie.epochs=3"], "recpie.epochs: unknown key; did you mean recipe.epochs?"),
    (["+recpie.epochs=3"], "recpie: unknown key; did you mean 'recipe'?"),
    (["zzz=3"], "zzz: unknown key; `motivation train --cfg job` prints all keys"),
    (["model=resnet21"], "model=resnet21: no such option; choose one of"),
    (["model.base=resnet21"], "unknown model 'resnet21'; did you mean"),
    (["schedule.k=0"], "schedule.k=0.0: must be at least 1"),
    (["data=arrays"], "data.path is missing"),
    (["data=arrays", "data.path=nowhere.npz"], "data.path=nowhere.npz: no such file"),
    (["data=cifar10"], "data.download=true"),
    (["recipe.batch_size=2000"], "only 1150 training images"),
    (["seed=0,1"], "--multirun"),
    (["+model._target_=os.system"], "model._target_: _target_ is refused"),
    (["recipe.epochs=${nothing}"], "nothing"),
    (["seed"], "seed"),
    (["--config-dir", "nowhere"], "nowhere: no such folder"),
    (["--config-path", "nowhere"], "--config-path is not supported"),
    (["-m", "hydra.run.dir=x", "seed=0,1"], "under -m use hydra.sweep.dir"),
    (["-m", "zzz=1,2"], "zzz: unknown key"),
])
def test_bad_overrides_are_one_line_and_leave_nothing(tmp_path, capsys, overrides, message):
    assert message in refused(capsys, "train", "tracker=none", *overrides)
    assert not [path for path in tmp_path.rglob("*") if path.name != "multirun.yaml" and path.is_file()]


def test_run_folder_under_a_file_or_held(tmp_path, capsys, finished):
    held = finished()
    capsys.readouterr()
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(capsys, "train", *QUICK, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert "already holds a run" in refused(capsys, "train", *QUICK, f"hydra.run.dir={held}")
    assert (tmp_path / "file").read_text() == "mine"


def test_compare_refuses_what_is_no_run(tmp_path, capsys):
    assert "no such run folder" in refused(capsys, "compare", "nowhere")


def test_own_configs_from_a_folder(tmp_path, capsys):
    (tmp_path / "mine" / "recipe").mkdir(parents=True)
    recipe = "batch_size: 256\nepochs: 1\noptimizer: {name: sgd, lr: 0.1}\n"
    (tmp_path / "mine" / "recipe" / "short.yaml").write_text(recipe)
    assert main(["train", "--config-dir", "mine", "recipe=short", "tracker=none", "hydra.run.dir=out"]) == 0
    assert capsys.readouterr().out == "out\n"


def test_train_help_and_config_are_printed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    assert "motivation train -m seed=0,1,2" in capsys.readouterr().out
    assert main(["train", "--cfg", "job", "schedule.k=7"]) == 0
    assert "k: 7\n" in capsys.readouterr().out


def test_unknown_command_is_refused():
    result = command("trian")
    assert result.returncode == 2
    assert "invalid choice: 'trian'" in result.stderr


def test_killed_run_left_what_happened(tmp_path):
    """SIGKILL in mid-training: steps.csv and epochs.jsonl hold whole rows, without a gap, of all that was done."""
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-m", "motivation", "train", "tracker=none", "recipe.epochs=500",
                                "engine.threads=1", f"hydra.run.dir={folder}"], stderr=subprocess.PIPE, text=True)
    lines = [process.stderr.readline() for _ in range(3)]
    assert lines[2].startswith("epoch 3/500")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    rows = (folder / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(len(rows)))
    header, *steps = (folder / "steps.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in steps] == list(range(len(steps)))
    assert len(steps) >= 17 * len(rows)
    assert all(row.count(",") == header.count(",") for row in steps)
    assert not (folder / "summary.json").exists()


@pytest.mark.parametrize("override", [
    "+hydra.callbacks.evil={_target_:shutil.copy,_args_:[setup.cfg,ran]}",
    "hydra.launcher._target_=os.system",
    "+hydra.launcher.inner={_target_:os.mkdir}",
    "+hydra.env.x={_target_:os.mkdir}",
    "++hydra.job_logging={version:1,handlers:{a:{class:logging.FileHandler,filename:ran}},root:{handlers:[a]}}",
    "+hydra.sweeper.params={hydra.callbacks:1}",
])
@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_hydras_own_part_runs_no_code(tmp_path, capsys, override, mode):
    refused(capsys, "train", *mode, *FAST, override, f"hydra.{'sweep' if mode else 'run'}.dir={tmp_path / 'folder'}")
    assert not list(tmp_path.iterdir())


def test_a_config_folder_runs_no_code_either(tmp_path, capsys):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    evil:\n      _target_: pathlib.Path.touch\n")
    for mode in ((), ("-m",)):
        line = refused(capsys, "train", *mode, *FAST, "--config-dir", str(tmp_path / "conf"), "experiment=mine")
        assert "hydra.callbacks is refused" in line


def config_folder(tmp_path, **experiments):
    """A --config-dir with these experiments."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    for name, text in experiments.items():
        (tmp_path / f"conf/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}\n")
    return "--config-dir", str(tmp_path / "conf")


@pytest.mark.parametrize("place", ["evil", "recipe.evil"])
def test_an_interpolation_brings_no_code_to_hydras_part(tmp_path, capsys, place):
    evil = f"+{place}={{_target_: os.mkdir, path: {tmp_path / 'ran'}}}"
    assert f"{place}._target_: _target_ is refused" in refused(
        capsys, "train", "-m", *FAST, evil, f"hydra.sweeper.params=${{{place}}}", f"hydra.sweep.dir={tmp_path / 's'}")
    assert not list(tmp_path.iterdir())


def test_a_resolver_brings_none_either(tmp_path, capsys):
    """`oc.create` makes a mapping that no key of the config holds: looked at as the sweeper will see it."""
    made = f"${{oc.create:{{_target_: os.mkdir, path: {tmp_path / 'ran'}}}}}"
    folder = config_folder(tmp_path, mine=f"hydra:\n  sweeper:\n    params: \"{made}\"")
    line = refused(capsys, "train", "-m", *FAST, *folder, "experiment=mine", f"hydra.sweep.dir={tmp_path / 's'}")
    assert "hydra.sweeper.params._target_: _target_ is refused" in line
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


EVIL_PARTS = {
    "job_logging": "version: 1, root: {handlers: [x]}, handlers: {x: {(): os.mkdir, path: PATH}}",
    "job.env_set": "LD_PRELOAD: PATH",
    "callbacks": "x: {_target_: os.mkdir, path: PATH}",
}


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
@pytest.mark.parametrize("part", EVIL_PARTS)
def test_a_swept_option_runs_no_code(tmp_path, capsys, launcher, part):
    """Each job's config is composed by itself: all are checked before the launcher gets the first."""
    values = EVIL_PARTS[part].replace("PATH", str(tmp_path / "ran"))
    text = "hydra:\n  " + "".join(f"{key}: {{" for key in part.split(".")) + values + "}" * part.count(".") + "}"
    folder = config_folder(tmp_path, evil=text, good="seed: 1")
    line = refused(capsys, "train", "-m", *FAST, *folder, "experiment=good,evil", f"hydra/launcher={launcher}",
                   f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert f"hydra.{part} is refused" in line
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_the_command_line_may_set_a_jobs_environment(tmp_path, capsys):
    assert main(["train", "--cfg", "hydra", "+hydra.job.env_set.A=b"]) == 0
    assert "A: b" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["${oc.env:WANDB_API_KEY}", "${oc.decode:'${oc.env:WANDB_API_KEY}'}",
                                   "${${way}:WANDB_API_KEY}", "${hydra:job.name}${oc.env:WANDB_API_KEY,none}"])
@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_a_config_reads_no_key_from_the_environment(tmp_path, capsys, monkeypatch, value, mode):
    """It would be written into config.yaml and checkpoints and sent to W&B; Hydra's own part names folders only."""
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    folder = config_folder(tmp_path, mine=f"way: oc.env\ntracker:\n  project: {json.dumps(value)}")
    assert main(["train", *mode, *FAST, *folder, "tracker=wandb", "experiment=mine",
                 f"hydra.run.dir={tmp_path / 'run'}" if not mode else f"hydra.sweep.dir={tmp_path / 'sweep'}"]) == 1
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert "tracker.project: ${oc.env:...} is refused" in line
    assert "secret" not in captured.out + captured.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "secret" in path.read_text()]
    assert not (tmp_path / "run").exists()


def test_a_config_file_that_is_no_yaml_is_named(tmp_path, capsys):
    line = refused(capsys, "train", *config_folder(tmp_path, mine="a: b: c"), "experiment=mine")
    assert "experiment/mine.yaml" in line
    assert "unexpected" not in line


def test_hydras_part_may_name_a_folder_by_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert main(["train", *FAST, "recipe.steps=1", "recipe.epochs=null", "hydra.run.dir=${oc.env:SCRATCH}/run"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'scratch/run'}\n"


def test_a_refused_sweep_changes_nothing(tmp_path, capsys):
    sweep = tmp_path / "sweep"
    line = refused(capsys, "train", "-m", *FAST, "model=resnet20,nosuch", f"hydra.sweep.dir={sweep}")
    assert "model=nosuch" in line
    assert not sweep.exists()
    sweep.mkdir()
    (sweep / "multirun.yaml").write_text("mine")
    assert "already holds a sweep" in refused(capsys, "train", "-m", *FAST, "seed=0,1", f"hydra.sweep.dir={sweep}")
    assert (sweep / "multirun.yaml").read_text() == "mine"
    assert "no such folder" in refused(capsys, "train", "-m", *FAST, "--config-dir", str(tmp_path / "none"))


@pytest.mark.parametrize(("overrides", "said"), [
    (["experiment=demo"], "run it with motivation train -m"),
    (["recipe.optimizer={name:adamw,betas:[0.9]}"], "recipe.optimizer.betas: unknown key; .*+recipe.optimizer.betas"),
    (["data={_target_:a}"], "data._target_: _target_ is refused"),
    (["recipe.optimizer.name=adamw"], "recipe.optimizer.momentum: .*recipe.optimizer.momentum=null"),
    (["hydra.run.dir=null"], "hydra.run.dir must name a folder"),
    (["hydra.run.dir=''"], "hydra.run.dir='': must name a folder"),
    (["hydra.launcher=null"], "hydra.launcher=None: must be a mapping"),
    (["model=resnet20", "model.network=vit_tiny_patch16_224"], "VisionTransformer cannot take an image of"),
    (["model=resnet20", "+model.options={depth:8}"], "model: "),
    (["model.base=resnet44"], "model: layer1: 7 blocks in the base, only 5"),
    (["data.validation=0.0001"], "data.validation=0.0001: a stratified split"),
    (["recipe.batch_size=5000"], "recipe.batch_size=5000 but there are only 1150"),
    (["engine.device=mps"], "engine.device='mps': there is none here"),
    (["+recipe.optimizer.nesterov=3"], "recipe.optimizer sgd: "),
    (["recipe.schedule.warmup_epochs=100"], "recipe.schedule.warmup_epochs=100: the whole run is 1 epochs"),
    (["resume=nowhere"], "nowhere holds no run"),
    (["--cfg", "job", "model=nosuch"], "model=nosuch: no such option"),
])
def test_mistakes_are_named_in_one_line(tmp_path, capsys, overrides, said):
    folder = () if any("run.dir" in override or "resume" in override for override in overrides) else (
        f"hydra.run.dir={tmp_path / 'run'}",)
    line = refused(capsys, "train", *FAST, *folder, *overrides)
    assert re.search(said.replace("+", r"\+"), line), line
    assert not list(tmp_path.iterdir())


def test_resume_from_the_command_line(tmp_path, capsys, finished):
    """resume=RUN reads the folder's own config; the same command with resume=auto finds its folder again."""
    assert main(["train", *FAST, "seed=5", "resume=auto"]) == 0
    folder = capsys.readouterr().out.strip()
    rows = (tmp_path / folder / "steps.csv").read_bytes()
    assert main(["train", *FAST, "seed=5", "resume=auto"]) == 0
    assert capsys.readouterr().out.strip() == folder
    assert main(["train", f"resume={folder}", "recipe.epochs=2"]) == 0
    assert capsys.readouterr().out.strip() == folder
    assert (tmp_path / folder / "steps.csv").read_bytes().startswith(rows)
    line = refused(capsys, "train", f"resume={folder}", "recipe.optimizer.lr=0.3")
    assert "recipe.optimizer.lr: 0.1 -> 0.3" in line


def test_resume_auto_under_multirun(tmp_path, capsys):
    sweep = ["train", "-m", *FAST, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}", "resume=auto"]
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
    assert refused(capsys, "pair", "resnet18", "resnet50").startswith(
        "motivation: error: layer1.0: BasicBlock in the base, Bottleneck in the motivated network")
    assert "unknown model 'resnet19x'" in refused(capsys, "pair", "resnet19x", "resnet50")
    assert "unknown depth rule 'middle'" in refused(capsys, "pair", "resnet20", "resnet32", "--depth-rule", "middle")
