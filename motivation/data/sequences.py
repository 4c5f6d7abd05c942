"""Problems as tensors: token ids, and as targets the next token wherever the solver writes it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from motivation.accuracy import IGNORED
from motivation.tasks.problem import ASK, Problem, Task


@dataclass(frozen=True)
class Sequences:
    """Token sequences of one part of a data set.

    Args:
        tokens: int64 ``(N, T)``.
        labels: int64 ``(N, T)``, the next token where it is learned, elsewhere `IGNORED`.
        noise: bool ``(N, T)``, where the verifier rejects what is learned: planted noise. None where it is unknown.
    """

    tokens: np.ndarray
    labels: np.ndarray
    noise: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray | slice) -> "Sequences":
        """The sequences at these indices."""
        return Sequences(self.tokens[indices], self.labels[indices],
                         None if self.noise is None else self.noise[indices])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(T,)``."""
        return self.tokens.shape[1:]

    @property
    def fingerprinted(self) -> tuple[np.ndarray, ...]:
        """Every token and label."""
        return self.tokens, self.labels


def encode(task: Task, problems: Iterable[Problem], prompt: int, answer: int | None = None) -> Sequences:
    """Problems as sequences of equal length.

    Prompts are padded before their last token, which asks for the answer, so that every answer starts at the same
    place: a problem's length then moves none of its parts. Answers are padded at their end.

    Args:
        task: whose vocabulary gives the ids.
        problems: at least one.
        prompt: tokens of every prompt, padding included.
        answer: tokens of every answer, padding included; None for those of the longest.
    """
    ids = {token: number for number, token in enumerate(task.vocabulary)}
    problems = list(problems)
    length = prompt + (max(len(problem.answer) for problem in problems) if answer is None else answer)
    tokens = np.zeros((len(problems), length), np.int64)
    labels = np.full((len(problems), length), IGNORED, np.int64)
    for row, problem in enumerate(problems):
        *given, ask = (ids[token] for token in problem.prompt)
        written = [ids[token] for token in problem.answer]
        tokens[row, :len(given)] = given
        tokens[row, prompt - 1:prompt + len(written)] = [ask, *written]
        labels[row, prompt:prompt + len(written)] = np.where(problem.written, written, IGNORED)
    # A sequence's last token has no next one.
    return Sequences(tokens[:, :-1].copy(), labels[:, 1:].copy())


def prompt_length(task: Task, part: Sequences) -> int:
    """Length of the prompts of sequences as `encode` made them, the token that asks included."""
    return int((part.tokens[0] == task.vocabulary.index(ASK)).argmax()) + 1


def with_noise(part: Sequences, task: Task, problems: Iterable[Problem], prompt: int) -> Sequences:
    """The same sequences, which know where the verifier rejects what is learned; arguments as of `encode`."""
    noise = np.zeros(part.labels.shape, bool)
    for row, problem in zip(noise, problems, strict=True):
        right = task.verify(problem, problem.answer)
        row[prompt - 1:prompt - 1 + len(right)] = np.logical_not(right)
    return replace(part, noise=noise & (part.labels != IGNORED))
