"""`motivation problems NAME`."""

import pytest
from commands import refused

from motivation.cli.main import main
from motivation.data.sources.problems import ChainProblems


def test_problems_are_those_of_the_run(capsys):
    assert main(["problems", "chains", "-n", "2", "data.depth=[1,3]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    task = ChainProblems(depth=(1, 3))
    assert [line.split()[0] for line in lines] == [split for split in task.splits for _ in range(2)]
    assert [line.split(maxsplit=1)[1] for line in lines[:2]] == [*map(task.render, task.problems("train", 2))]


def test_noise_is_marked_in_training_alone(capsys):
    main(["problems", "noisy_chains", "-n", "20"])
    marked = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "!" in line}
    assert marked == {"train"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["digits"], "problems digits: is no task; choose one of chains, pointer_chase, two_source_chains"),
    (["chain"], "data=chain: no such option; choose one of"),
    (["chains", "data.depth=[1,1]"], "data.depth=[1, 1]: must be the fewest and the most functions"),
    (["chains", "data.depht=1"], "data.depht: unknown key")])
def test_what_is_no_task_is_refused(arguments, message, capsys):
    assert message in refused(capsys, "problems", *arguments)
