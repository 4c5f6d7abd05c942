"""The notebooks: stored without outputs, executed on small runs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from motivation.models import create_model

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# Of the kernel's own, in its process: this one's warnings are errors.
KERNELS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore::DeprecationWarning:jupyter_client",
                                         "ignore::RuntimeWarning:zmq", "ignore::ResourceWarning")


def executed(name, folder):
    """Run a notebook in a folder; all its text and how many pictures it shows."""
    notebook = nbformat.read(next(path for path in NOTEBOOKS if path.stem == name), as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    data = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    text = "\n".join([*(output.text for output in outputs if output.output_type == "stream"),
                      *(part.get("text/markdown", "") for part in data)])
    return text, sum("image/png" in part for part in data)


def test_all_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["levers", "paper_tables", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@KERNELS_OWN
def test_quickstart_trains_looks_and_compares(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHS", "1")
    monkeypatch.setenv("SEEDS", "0")
    text, pictures = executed("quickstart", tmp_path)
    assert pictures == 3
    sizes = [f"{phase} {sum(tensor.numel() for tensor in create_model(name, 10, 1).parameters())} parameters"
             for phase, name in (("base", "resnet20"), ("motivated", "resnet32"))]
    for part in ("motivated steps:", "| runs", "no control here", "points (n = 1 against 1; no test below n = 2)",
                 "ECE %", *sizes):
        assert part in text, part
    assert len(list((tmp_path / "runs/quickstart").glob("*/summary.json"))) == 3


@KERNELS_OWN
def test_paper_tables_reads_run_folders(tmp_path, finished, monkeypatch):
    folders = [finished(), finished("seed=1"), finished("model=resnet8"), finished("model=resnet8", "seed=1"),
               finished("model=resnet8", "model.network=resnet14")]
    monkeypatch.setenv("RUNS", " ".join(map(str, folders)))
    text, pictures = executed("paper_tables", tmp_path)
    assert pictures == 3
    for part in ("| ACC/FLOPs |", "paired t)", "Retained gain", "(first run):", "ECE %"):
        assert part in text, part
    assert not list(tmp_path.iterdir())


@pytest.mark.soak
@KERNELS_OWN
def test_levers_repairs_trains_and_shows_the_committed_table(tmp_path, monkeypatch):
    """The smallest table is trained from nothing; the one of five seeds needs no run."""
    monkeypatch.setenv("SEEDS", "1")
    text, _ = executed("levers", tmp_path)
    for part in ("right steps:   [True, False, False, True]", "first wrong step: ",
                 "accepted: True, the teacher wrote 3 tokens", "all four failed:   [0.0, 0.0, 0.0, 0.0]",
                 "one is repaired:   [1.73, -0.58, -0.58, -0.58]",
                 "| whole_matched, verifier |", "| first wrong step by a network |", "| 5/5 |", "Scale minute"):
        assert part in text, part
    assert not (tmp_path / "runs/levers/none").exists()


@pytest.mark.soak
@KERNELS_OWN
def test_paper_tables_without_a_pair_says_so(tmp_path, finished, monkeypatch):
    monkeypatch.setenv("RUNS", str(finished("model=resnet8")))
    text, _ = executed("paper_tables", tmp_path)
    assert text.count("No pair among these runs.") == 2
