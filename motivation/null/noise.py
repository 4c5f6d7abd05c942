"""The noise of a training curve, without its trend: an autoregression that can be drawn from again."""

from typing import NamedTuple

import numpy as np

SEGMENTS = 8                # fewest segments that a fit is worth anything with
STRETCH = (48, 192)         # shortest and longest segment, where the curve has so many
STEPS_A_COEFFICIENT = 16
BURN_IN = 256
CORRECTIONS, DAMPING = 30, 0.5
ROUNDS = 4                  # of fitting the autoregression, then the difference between the networks
LEANING = 20.0              # values' worth of the whole curve's difference in that of a tenth
STABLE = 0.97, 0.5           # largest partial autocorrelation, of lag 1 and beyond: a random walk is cut down to it


class Noise(NamedTuple):
    """What a curve does beside its trend.

    Attributes:
        coefficients: ``(order,)`` of the autoregression.
        innovations: ``(segments, width - order)`` what it does not foresee, segments in order of time.
        apart: ``(segments,)`` how much higher the motivated network's values lie than the base's.
    """

    coefficients: np.ndarray
    innovations: np.ndarray
    apart: np.ndarray

    def difference(self, start: float = 0.0, stop: float = 1.0) -> float:
        """How much higher the motivated network's values lie in one part of the curve."""
        return float(_part(self.apart, start, stop).mean())

    def draw(self, steps: int, rng: np.random.Generator, start: float = 0.0, stop: float = 1.0) -> np.ndarray:
        """New noise ``(steps,)``: innovations of one part of the curve, from one share of it to another, permuted.

        Drawn with replacement, and coloured by the autoregression.
        """
        from scipy.signal import lfilter

        innovations = rng.choice(_part(self.innovations, start, stop).ravel(), steps + BURN_IN)
        return lfilter([1.0], np.r_[1.0, -self.coefficients], innovations)[BURN_IN:]


def noise_of(values: np.ndarray, motivated: np.ndarray) -> Noise:
    """The noise of a curve ``(n,)`` of at least `SEGMENTS` x 12 values; ``motivated`` says which network made each.

    The curve is cut into segments (a twentieth of it, 48 to 192 values), and each loses a parabola of its own: what is
    left of a training curve's trend in it is far below its noise, whatever the curve's shape. A difference between the
    two networks goes too. It is estimated together with the autoregression, from what that does not foresee: which
    network trains was decided before the value came, so that expanding where values are low by chance makes none.

    The order of the autoregression is a sixteenth of a segment: longer memories than a segment are taken for trend.
    """
    width = min(int(np.clip(len(values) // 20, *STRETCH)), len(values) // SEGMENTS)
    order = max(1, width // STEPS_A_COEFFICIENT)
    count = len(values) // width
    segments = values[len(values) - count * width:].reshape(count, width)
    away = _without_parabola(width)
    residuals = segments @ away
    switches = motivated[len(values) - count * width:].reshape(count, width) @ away
    apart = np.zeros(count)
    for _ in range(ROUNDS):
        left = residuals - apart[:, None] * switches
        noisy = (left * left).sum(1) > 1e-18 * (segments * segments).sum(1)
        if not noisy.any():
            return Noise(np.zeros(order), np.zeros((count, width - order)), apart)
        coefficients = _fitted(left[noisy], away, order)
        apart = apart + _apart(_unforeseen(left, coefficients), _unforeseen(switches, coefficients))
    residuals = residuals - apart[:, None] * switches
    innovations = _unforeseen(residuals, coefficients)
    # As large as makes the noise change from one value to the next as the curve does.
    autocorrelations, gain = _spectral(coefficients, width)
    changes = (np.diff(residuals) ** 2).mean()
    drawn = 2 * (1 - autocorrelations[1]) * gain * (innovations * innovations).mean()
    return Noise(coefficients, innovations * np.sqrt(changes / drawn), apart)


def _part(segments: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Segments from one share of a curve to another, at least one."""
    first = int(start * len(segments))
    return segments[first:max(first + 1, round(stop * len(segments)))]


def _unforeseen(segments: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """What an autoregression does not foresee of segments ``(segments, width)``, from its order on."""
    order, width = len(coefficients), segments.shape[1]
    return segments[:, order:] - sum(coefficient * segments[:, order - lag:width - lag]
                                     for lag, coefficient in enumerate(coefficients, start=1))


def _without_parabola(width: int) -> np.ndarray:
    """Projection ``(width, width)`` that takes the parabola away."""
    basis = np.linalg.qr(np.vander(np.linspace(-1, 1, width), 3))[0]
    return np.eye(width) - basis @ basis.T


def _apart(values: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """Regression of values on switches ``(segments, n)`` about each tenth of the curve, for every segment.

    The parabola was taken away, and with it a share of earlier values from every later one. The phase was chosen by
    them: their part is put back. A tenth in which the networks hardly changed places leans on the others.
    """
    count, width = values.shape
    earlier = np.tril(np.eye(width) - _without_parabola(width), -1)
    shared, power = (switches * (values + values @ earlier.T)).sum(1), (switches * switches).sum(1)
    overall = shared.sum() / max(1.0, power.sum())
    tenths = np.array_split(np.arange(count), max(1, min(10, count // SEGMENTS)))
    return np.concatenate([np.full(len(tenth), (shared[tenth].sum() + LEANING * overall)
                                   / (power[tenth].sum() + LEANING)) for tenth in tenths])


def _fitted(residuals: np.ndarray, away: np.ndarray, order: int) -> np.ndarray:
    """Coefficients ``(order,)`` of the autoregression of noise, of which ``away`` took the trend.

    The autocorrelations are medians over segments, so that a few segments in which the curve breaks (a drop of the
    learning rate) do not count. A parabola takes noise away too, so they are corrected until noise of this
    autoregression would show what was seen.
    """
    from scipy.linalg import toeplitz

    width = residuals.shape[1]
    powers = (residuals * residuals).sum(1)
    seen = np.array([np.median((residuals[:, :width - lag] * residuals[:, lag:]).sum(1) / powers)
                     for lag in range(order + 1)])
    coefficients = _autoregression(seen)
    for _ in range(CORRECTIONS):
        autocorrelations, _ = _spectral(coefficients, width)
        left = away @ toeplitz(autocorrelations) @ away
        expected = np.array([np.trace(left, lag) for lag in range(order + 1)]) / np.trace(left)
        coefficients = _autoregression(autocorrelations[:order + 1] + DAMPING * (seen - expected))
    return coefficients


def _autoregression(autocorrelations: np.ndarray) -> np.ndarray:
    """Coefficients with these autocorrelations from lag 0 on (Levinson and Durbin), kept stable."""
    coefficients, error = np.zeros(0), 1.0
    for lag in range(1, len(autocorrelations)):
        reflection = (autocorrelations[lag] - coefficients @ autocorrelations[lag - 1:0:-1]) / error
        reflection = np.clip(reflection, -STABLE[lag > 1], STABLE[lag > 1])
        coefficients = np.append(coefficients - reflection * coefficients[::-1], reflection)
        error *= 1 - reflection * reflection
    return coefficients


def _spectral(coefficients: np.ndarray, lags: int) -> tuple[np.ndarray, float]:
    """Autocorrelations ``(lags,)`` of an autoregression, from lag 0 on, and its variance over that of innovations."""
    spectrum = np.abs(np.fft.rfft(np.r_[1.0, -coefficients], 4096)) ** -2
    autocovariances = np.fft.irfft(spectrum)[:lags]
    return autocovariances / autocovariances[0], float(autocovariances[0])
