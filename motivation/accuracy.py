"""What counts as right: an image's class, or every token of an answer."""

import numpy as np

# A target that no loss and no accuracy looks at; the default of torch's cross-entropy.
IGNORED = -100


def exact_match(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each image's class, or every token of each answer, is the likeliest one: bool ``(N,)``.

    Tokens are predicted from the right ones before them. All of an answer are right exactly where greedy decoding
    writes that answer: up to its first wrong token it sees the same tokens.

    Args:
        probabilities: ``(N, classes)``, or ``(N, classes, T)``.
        labels: ``(N,)``, or ``(N, T)`` with `IGNORED` beside the answers.
    """
    right = (probabilities.argmax(1) == labels) | (labels == IGNORED)
    return right.reshape(len(labels), -1).all(1)


def each_prediction(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities ``(M, classes)`` and labels ``(M,)`` of each image, or of each token of each answer."""
    if labels.ndim == 1:
        return probabilities, labels
    counted = labels != IGNORED
    return probabilities.swapaxes(1, -1)[counted], labels[counted]
