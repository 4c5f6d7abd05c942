"""Data sets of problems: drawn from a task, nothing to download."""

from dataclasses import dataclass

from motivation.data.dataset import Dataset, check_shares
from motivation.data.sequences import Sequences, encode, with_noise
from motivation.tasks import Chains, PointerChase, TwoSourceChains
from motivation.tasks.problem import Problem, Task
from motivation.validation import Count, ShareBelowOne, check_arguments


@dataclass(frozen=True)
class Problems(Task):
    """Problems of a task as a data set. ``seen`` is the test set, the other test splits are evaluated beside it.

    Args:
        train: training problems.
        test: problems of every test split.
        skip: training problems that are drawn and left out before the first, so that two runs share none.
        validation: problems for model selection, in addition to the training problems and as a share of them.
        heldout: problems kept for monitors, likewise.
    """

    train: Count = 8192
    test: Count = 512
    validation: ShareBelowOne = 0.0
    heldout: ShareBelowOne = 0.0
    skip: Count | None = None

    def load(self) -> Dataset:
        """Draw them.

        Raises:
            ValueError: no problem belongs to a split, or the verifier rejects a solution.
        """
        check_shares(self.validation, self.heldout)
        skip = self.skip or 0
        drawn = {split: self.problems(split, skip + self.train if split == "train" else self.test)
                 for split in self.splits if split != "validation"}
        drawn["train"] = drawn["train"][skip:]
        counts = [round(share * self.train) for share in (self.validation, self.heldout)]
        drawn["validation"] = self.problems("validation", sum(counts))
        prompt = max(len(problem.prompt) for problems in drawn.values() for problem in problems)

        def encoded(problems: list[Problem]) -> Sequences | None:
            if not problems:
                return None
            # Also where the answer that is shown is shorter than a right one, as rollouts are no longer than a row.
            answer = max(len(one) for problem in problems for one in (problem.answer, self.solution(problem)))
            return with_noise(encode(self, problems, prompt, answer), self, problems, prompt)

        validation, heldout = drawn["validation"][:counts[0]], drawn.pop("validation")[counts[0]:]
        parts = {split: encoded(problems) for split, problems in drawn.items()}
        return Dataset(parts.pop("train"), parts.pop("seen"), len(self.vocabulary), encoded(validation),
                       encoded(heldout), self.vocabulary, parts, self, drawn["train"])


@check_arguments
@dataclass(frozen=True)
class ChainProblems(Problems, Chains):
    """Chains as a data set; see `motivation.tasks.Chains` and `Problems`."""


@check_arguments
@dataclass(frozen=True)
class PointerChaseProblems(Problems, PointerChase):
    """Pointer chase as a data set; see `motivation.tasks.PointerChase` and `Problems`."""


@check_arguments
@dataclass(frozen=True)
class TwoSourceProblems(Problems, TwoSourceChains):
    """Two-source chains as a data set; see `motivation.tasks.TwoSourceChains` and `Problems`."""
