"""Problems as tensors, their loader, and what counts as right."""

import numpy as np
import pytest
import torch

from motivation.accuracy import IGNORED, each_prediction, exact_match
from motivation.data import BY_NAME, Augmentation, SequenceLoader, open_loader
from motivation.data.sources.problems import ChainProblems, PointerChaseProblems


def decoded(task, tokens):
    return [task.vocabulary[token] for token in tokens]


@pytest.mark.parametrize("name", ["chains", "pointer_chase", "two_source_chains"])
def test_targets_are_the_tokens_that_the_solver_writes(name):
    """Each row read back: its prompt, its answer from one place on, and as targets what is written in it."""
    task = BY_NAME[name](train=40, test=20)
    data = task.load()
    start = None
    for split, part in {"train": data.train, "seen": data.test, **data.further_tests}.items():
        for problem, tokens, labels in zip(task.problems(split, len(part)), part.tokens, part.labels, strict=True):
            whole = [*decoded(task, tokens), "?"]
            place = whole.index("=")
            start = start or place
            assert place == start
            assert [token for token in whole[:place] if token != "_"] == [*problem.prompt[:-1]]
            answer = [token if written else None for token, written in zip(problem.answer, problem.written,
                                                                            strict=True)]
            wanted = [None] * place + answer
            assert [None if label == IGNORED else task.vocabulary[label] for label in labels] == wanted + [None] * (
                len(labels) - len(wanted))
            follow = labels != IGNORED
            assert (tokens[1:][follow[:-1]] == labels[:-1][follow[:-1]]).all()


def test_parts_share_no_problem_and_are_of_the_wanted_size():
    data = ChainProblems(train=200, test=30, validation=0.1, heldout=0.2).load()
    assert [len(part) for part in (data.train, data.validation, data.heldout, data.test)] == [200, 20, 40, 30]
    assert set(data.further_tests) == {"longer", "unseen_path", "unseen_function"}
    prompts = [{tuple(row) for row in part.tokens[:, :10]} for part in (data.train, data.test, data.validation)]
    assert not prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2]
    assert data.num_classes == len(data.classes) == 20


@pytest.mark.parametrize(("shown", "longest"), [((1, 2), 10), ((1, 6), 14), (None, 10)])
def test_a_row_holds_a_right_answer_and_every_shown_one(shown, longest):
    """Prompts of 3; a sequence's last token is a target alone."""
    data = PointerChaseProblems(hops=(4, 4), longer=5, shown=shown, train=200, test=10).load()
    assert data.image_shape == (3 + longest - 1,)
    assert data.test.image_shape == (3 + 10 - 1,)


def test_the_fingerprint_is_of_every_split():
    task = ChainProblems(train=40, test=20)
    assert task.load().fingerprint == task.load().fingerprint
    assert len({ChainProblems(train=40, test=20, **changes).load().fingerprint
                for changes in ({}, {"longer": 7}, {"task_seed": 1}, {"noise": 0.5})}) == 4


def test_loader_gives_every_sequence_once_an_epoch_and_its_share():
    train = PointerChaseProblems(train=50, test=10).load().train
    loader = SequenceLoader(train, 16, seed=3)
    whole = [*loader.epoch(1)]
    assert len(whole) == len(loader) == 3
    assert len({tuple(row) for tokens, _ in whole for row in tokens.tolist()}) <= 48
    for (tokens, labels), (later, _) in zip(whole[1:], loader.epoch(1, start=1), strict=True):
        assert torch.equal(tokens, later)
        assert (tokens.shape, labels.shape) == ((16, 12), (16, 12))
    shared = SequenceLoader(train, 16, seed=3, share=slice(4, 8))
    assert all(torch.equal(part[0], all_of_it[0][4:8]) for part, all_of_it in zip(shared.epoch(1), whole, strict=True))
    assert [len(batch) for batch in loader.evaluation_batches(train, 20)] == [20, 20, 10]


@pytest.mark.parametrize("wanted", [{"flip": True}, {"mixup": 0.2}, {"image_size": 32}, {"crop_padding": 1}])
def test_augmentation_of_tokens_is_refused(wanted):
    data = PointerChaseProblems(train=50, test=10).load()
    [(name, value)] = wanted.items()
    with pytest.raises(ValueError, match=f"{name}={value}: is for images, and these are tokens; must be"):
        open_loader(data, 16, augmentation=Augmentation(**wanted))


def test_exact_match_needs_every_token_of_an_answer():
    labels = np.array([[IGNORED, 1, 2], [IGNORED, 0, IGNORED]])
    probabilities = np.zeros((2, 3, 3))
    probabilities[0, 1, 1] = probabilities[0, 0, 2] = probabilities[1, 0, 1] = 1
    assert exact_match(probabilities, labels).tolist() == [False, True]
    probabilities[0, 2, 2] = 2
    assert exact_match(probabilities, labels).all()
    rows, each = each_prediction(probabilities, labels)
    assert (rows.shape, each.tolist()) == ((3, 3), [1, 2, 0])
    assert (rows[0] == probabilities[0, :, 1]).all()


def test_exact_match_of_images_is_accuracy():
    probabilities, labels = np.eye(3)[[0, 1, 1]], np.array([0, 1, 2])
    assert exact_match(probabilities, labels).tolist() == [True, True, False]
    assert each_prediction(probabilities, labels)[0] is probabilities
