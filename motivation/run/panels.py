"""The panels of docs/wandb.md as a saved view of a W&B project; needs the package wandb-workspaces and a server."""

import importlib.util
from typing import Any

from motivation.run.trackers import logged_in

VIEW = "motivation"


def save_panels(project: str, entity: str | None = None) -> str:
    """Save the view in a project, and return its address. Each call makes a new view.

    Args:
        project: W&B project; it must have runs.
        entity: its team or user; None for the login's default.

    Raises:
        ValueError: the package is missing, there is no login, or the server refuses.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise ValueError("wandb-panels needs a package: pip install motivation[wandb-panels]")
    if not logged_in():
        raise ValueError("wandb-panels needs a login, since W&B keeps views on its server: wandb login")
    import wandb

    try:
        view = workspace(project, entity or wandb.Api().default_entity)
        return view.save().url
    except Exception as error:
        # W&B's errors have no common class.
        raise ValueError(f"W&B does not save a view in project {project}: "
                         f"{' '.join(str(error).split())[:200] or type(error).__name__}") from error


def workspace(project: str, entity: str) -> Any:
    """The view, a `wandb_workspaces.workspaces.Workspace` that is not saved; needs no server.

    Runs are grouped by group and job type: a line is the mean over seeds, its band their standard deviation.
    """
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces.expr import Metric
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, ScatterPlot, SummaryMetric

    def lines(title: str, x: str, *y: str) -> LinePlot:
        return LinePlot(title=title, x=x, y=list(y), groupby_aggfunc="mean", groupby_rangefunc="stddev")

    def scatter(title: str, x: str, y: str) -> ScatterPlot:
        return ScatterPlot(title=title, x=SummaryMetric(x), y=SummaryMetric(y))

    sections = {
        "Accuracy over compute": [
            lines("Test accuracy", "budget/flops", "base/top1", "motivated/top1"),
            lines("Validation accuracy", "budget/flops", "base/val_top1", "motivated/val_top1")],
        "Where it expanded": [
            lines("Loss by step", "trainer/step", "trainer/loss"),
            lines("Motivated share and phase", "trainer/step", "trainer/motivated_share", "trainer/phase"),
            lines("Expansions", "trainer/step", "trainer/expansions"),
            lines("Score", "trainer/step", "trainer/score", "trainer/score_max"),
            lines("Learning rate", "trainer/step", "trainer/lr"),
            lines("Loss over compute", "budget/flops", "trainer/loss")],
        "Pareto": [
            scatter("Base, training", "budget/flops", "base/top1"),
            scatter("Motivated, training", "budget/flops", "motivated/top1"),
            scatter("Base, inference", "base/forward_flops", "base/top1"),
            scatter("Motivated, inference", "motivated/forward_flops", "motivated/top1")],
        "Progress or noise": [
            BarPlot(title="Motivated steps", metrics=["steps/motivated"]),
            BarPlot(title="Intervals", metrics=["intervals"]),
            BarPlot(title="Share of motivated steps on noise", metrics=["null_rate"])],
        "Epochs and cost": [
            lines("Loss by epoch", "epoch", "train/loss"),
            BarPlot(title="Seconds of training", metrics=["budget/seconds"]),
            BarPlot(title="Bytes copied by switches", metrics=["budget/bytes_copied"]),
            BarPlot(title="The paper's F", metrics=["budget/forward_per_image"])],
    }
    return workspaces.Workspace(
        name=VIEW, entity=entity, project=project, auto_generate_panels=False,
        sections=[workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        runset_settings=workspaces.RunsetSettings(groupby=[Metric("Group"), Metric("JobType")]))
