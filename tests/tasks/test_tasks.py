"""Tasks: their verifiers against literal solvers, splits that share no problem, and refusals."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motivation.tasks import Chains, PointerChase, Task, TwoSourceChains

TASKS = {"chains": Chains(), "noisy chains": Chains(noise=0.5), "pointer chase": PointerChase(),
         "two-source chains": TwoSourceChains()}


def path_of(problem):
    """The functions of a problem and its start; what the splits are about."""
    names = [token for token in problem.prompt[:-1] if token[0] in "fn"]
    starts = [token for token in problem.prompt[:-1] if token.isdigit()]
    return tuple(names), starts[-1]


@pytest.mark.parametrize("name", TASKS)
def test_every_split_has_verified_problems(name):
    """Solutions are accepted; with one token changed, that token is wrong and the answer is not accepted."""
    task, rng = TASKS[name], random.Random(0)
    assert task.splits[:4] == ("train", "validation", "seen", "longer")
    for split in task.splits:
        for problem in task.problems(split, 30):
            solution = task.solution(problem)
            assert task.verify(problem, solution) == [True] * len(solution) == [True] * len(problem.written)
            assert set(problem.prompt) | set(problem.answer) <= set(task.vocabulary) - {task.vocabulary[0]}
            assert problem.prompt[-1] == "="
            place = rng.randrange(len(solution))
            wrong = [*solution]
            wrong[place] = rng.choice([token for token in task.vocabulary if token != wrong[place]])
            assert task.verify(problem, wrong)[:place + 1] == [True] * place + [False]
            assert not task.accepts(problem, wrong)
            assert not task.accepts(problem, solution[:-1])
            assert not task.accepts(problem, [*solution, solution[-1]])
            assert task.verify(problem, [*solution, "0"])[-1] is False


@given(st.integers(0, 50), st.integers(2, 12), st.integers(2, 6))
def test_chains_are_their_functions_applied(seed, values, functions):
    task = Chains(task_seed=seed, values=values, functions=functions, unseen_functions=1, depth=(1, 3), longer=4)
    assert all(sorted(table) == list(range(values)) for table in task.tables)
    for problem in task.problems("longer", 5):
        value = int(problem.prompt[0])
        for name, written in zip(problem.prompt[1:-1], problem.answer, strict=True):
            value = task.tables[int(name[1:])][value]
            assert written == str(value)


def test_a_look_up_reads_the_hidden_table():
    for problem in PointerChase().problems("longer", 20):
        value = int(problem.prompt[1])
        entries = problem.answer[1:-2:2]
        for entry in entries:
            value = problem.hidden[value]
            assert entry == str(value)
        assert problem.answer[-2:] == ("A", str(value))
        assert len(entries) == int(problem.prompt[0][1:])
        assert [token for token, written in zip(problem.answer, problem.written, strict=True) if not written] == [
            *entries]


def test_shown_answers_make_other_look_ups_than_are_needed():
    """In training alone, and of the same problems as without; a right answer is still the one of k look-ups."""
    plain, task = PointerChase(hops=(4, 4), longer=5), PointerChase(hops=(4, 4), longer=5, shown=(1, 6))
    drawn = task.problems("train", 300)
    lengths = {sum(token == "S" for token in problem.answer) for problem in drawn}
    assert lengths == {1, 2, 3, 4, 5, 6}
    for problem in drawn:
        entries, value = problem.answer[1:-2:2], int(problem.prompt[1])
        for entry in entries:
            value = problem.hidden[value]
            assert entry == str(value)
        assert problem.answer[-2:] == ("A", str(value))
        assert [token for token, written in zip(problem.answer, problem.written, strict=True) if not written] == [
            *entries]
        solution = task.solution(problem)
        assert len(solution) == len(task.solution_written(problem)) == 2 * 4 + 2
        assert task.accepts(problem, problem.answer) == (len(entries) == 4) == (problem.answer == solution)
        assert not task.accepts(problem, solution[:-1])
        assert task.accepts(problem, solution)
    for split in ("validation", "seen", "longer"):
        assert task.problems(split, 20) == plain.problems(split, 20)


@pytest.mark.parametrize("name", TASKS)
def test_the_environment_writes_the_solution_with_a_right_solver(name):
    """Token by token: what the solver does not write the environment does, and the answer is over at its end."""
    for problem in TASKS[name].problems("longer", 10):
        solution, answer = TASKS[name].solution(problem), []
        while not TASKS[name].is_over(problem, answer):
            token = TASKS[name].environment(problem, answer)
            assert (token is None) == problem.written[len(answer)]
            answer.append(solution[len(answer)] if token is None else token)
        assert tuple(answer) == solution


def test_the_environment_answers_any_look_up():
    """More of them than are needed, and after tokens that mean nothing; an answer is over with the token after A."""
    task = PointerChase()
    problem = task.problems("train", 1)[0]
    value, answer = int(problem.prompt[1]), ["3", "k1"]
    for _ in range(9):
        assert task.environment(problem, answer) is None
        answer.append("S")
        value = problem.hidden[value]
        assert task.environment(problem, answer) == str(value)
        answer.append(str(value))
        assert not task.is_over(problem, answer)
    assert not task.is_over(problem, [*answer, "A"])
    assert task.is_over(problem, [*answer, "A", "_"])
    assert task.is_over(problem, ["A", "A"])


def test_two_sources_compose_a_table_of_the_prompt_with_a_learned_one():
    task = TwoSourceChains()
    for problem in task.problems("seen", 30):
        table, value = [int(token) for token in problem.prompt[1:9]], int(problem.prompt[9])
        for name, written in zip(problem.prompt[10:-1], problem.answer, strict=True):
            value = table[value] if name == problem.prompt[0] else task.tables[int(name[1:])][value]
            assert written == str(value)


@pytest.mark.parametrize("name", ["chains", "two-source chains"])
def test_splits_are_about_what_was_trained_on(name):
    """No tested start of a path, no unseen path and no unseen function in a path was trained on; all functions were."""
    task = TASKS[name]
    train = {path_of(problem) for problem in task.problems("train", 4000)}
    composed = {path for path, _ in train if len(path) > 1 and len({name[0] for name in path}) == (
        1 if name == "chains" else 2)}
    functions = {name for path in composed for name in path}
    seen, path, function = ([path_of(problem) for problem in task.problems(split, 100)]
                            for split in ("seen", "unseen_path", "unseen_function"))
    assert not train & {*seen}
    assert not composed & {names for names, _ in path}
    assert all(set(names) <= functions for names, _ in path + seen)
    assert all(set(names) - functions for names, _ in function)
    assert all({name} <= {one for names, _ in train for one in names} for names, _ in function for name in names)
    assert not {*seen} & {path_of(problem) for problem in task.problems("validation", 100)}
    assert min(len(names) for names, _ in map(path_of, task.problems("longer", 50))) > max(map(len, composed))


def test_noise_is_a_share_of_steps_and_the_chain_goes_on_from_it():
    """A random value is right one time in ten, so half noise leaves 55 % of the steps right; only in training."""
    task = TASKS["noisy chains"]
    right = [one for problem in task.problems("train", 2000) for one in task.verify(problem, problem.answer)]
    assert abs(sum(right) / len(right) - 0.55) < 0.03
    assert all(task.accepts(problem, problem.answer) for problem in task.problems("seen", 50))


def test_more_problems_begin_with_the_same_ones_and_another_seed_has_others():
    task = TASKS["chains"]
    assert task.problems("seen", 20)[:5] == task.problems("seen", 5)
    assert Chains(task_seed=1).problems("seen", 5) != task.problems("seen", 5)
    assert Chains(task_seed=1).tables != task.tables


def test_problems_as_text():
    task = PointerChase()
    [problem] = task.problems("train", 1)
    assert task.render(problem).startswith(" ".join(problem.prompt) + " S [")
    wrong = replace(problem, answer=("A", *problem.answer[1:]))
    assert f"{' '.join(problem.prompt)} A! [" in task.render(wrong)


def test_a_verifier_that_rejects_its_own_solutions_is_refused():
    class Broken(Chains):
        def verify(self, problem, answer):
            return [False] * len(answer)

    with pytest.raises(ValueError, match="Broken: its verifier rejects its own solution of "):
        Broken().problems("seen", 1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Chains(depth=(3, 2)), r"depth=\[3, 2\]: must be the fewest and the most"),
    (lambda: Chains(depth=(1, 1)), "reach 2"), (lambda: Chains(longer=6), "longer=6: must be more than the 6"),
    (lambda: Chains(unseen_functions=8), "unseen_functions=8: must leave one of 8"),
    (lambda: Chains(depth=(2, 6)), "unseen_functions=2: are learned from single functions"),
    (lambda: Chains(values=1), "values=1: must be at least 2"), (lambda: Chains(noise=1.5), "noise=1.5: must be"),
    (lambda: Chains(functions=2, unseen_functions=1, depth=(1, 2), longer=3).problems("unseen_path", 1),
     "split=unseen_path: none of 10,000 problems"),
    (lambda: Chains().problems("test", 1), "split=test: Chains has train, validation, seen, longer, unseen_path, un"),
    (lambda: PointerChase(hops=(2, 1)), r"hops=\[2, 1\]: must be"), (lambda: PointerChase(longer=4), "longer=4: must"),
    (lambda: PointerChase(shown=(3, 1)), r"shown=\[3, 1\]: must be the fewest and the most look-ups"),
    (lambda: TwoSourceChains(mixture=(0, 0, 0, 0)), "mixture=.*must have a share above 0 of facts, memory"),
    (lambda: TwoSourceChains(unseen_functions=12), "unseen_functions=12: must leave one of 12 functions")])
def test_impossible_tasks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_task_is_what_it_says():
    assert all(isinstance(task, Task) and task.vocabulary[:2] == ("_", "=") for task in TASKS.values())


def test_depths_are_drawn_by_their_shares_and_tested_one_by_one():
    shares = ((2, 84), (4, 10), (8, 5), (16, 1))
    task = Chains(depth=(1, 16), longer=17, depth_shares=shares, unseen_functions=0)
    assert task.splits[-4:] == ("depth_2", "depth_4", "depth_8", "depth_16")
    depths = [len(problem.answer) for problem in task.problems("train", 3000)]
    bands = [(0, 2), (2, 4), (4, 8), (8, 16)]
    drawn = [sum(low < depth <= most for depth in depths) / 30 for low, most in bands]
    assert drawn == pytest.approx([share for _, share in shares], abs=3)
    assert drawn[3] > 0
    for low, most in bands:
        tested = {len(problem.answer) for problem in task.problems(f"depth_{most}", 100)}
        assert tested == set(range(max(2, low + 1), most + 1))
    trained = {problem.prompt for problem in task.problems("train", 3000)}
    assert not trained & {problem.prompt for split in task.splits[-4:] for problem in task.problems(split, 100)}


@pytest.mark.parametrize("shares", [((2, 1),), ((4, 1), (2, 1), (6, 1)), ((1, 1), (6, 1)), ()])
def test_impossible_depth_shares_are_refused(shares):
    with pytest.raises(ValueError, match=r"depth_shares=.*ascending from at least 2 and up to 6, the most of depth"):
        Chains(depth_shares=shares)
