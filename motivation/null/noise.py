"""The noise of a training curve, without its trend: an autoregression that can be drawn from again."""

from typing import NamedTuple

import numpy as np

SEGMENTS = 8                # fewest segments for a fit
WIDTHS = (48, 192)          # shortest and longest segment, where the curve has so many values
STEPS_A_COEFFICIENT = 16
BURN_IN = 256
CORRECTIONS, DAMPING = 30, 0.5
SHRINKAGE = 20.0            # weight, in values, of the whole curve's difference in that of a tenth
STABLE = 0.97, 0.5          # largest partial autocorrelation, of lag 1 and of longer lags: a random walk has 1


class Noise(NamedTuple):
    """The noise of a curve: what is left without its trend.

    Attributes:
        coefficients: ``(order,)`` of the autoregression.
        innovations: ``(segments, width - order)`` its residuals, segments in order of time.
        differences: ``(segments,)`` how much higher the motivated network's values are than the base's.
    """

    coefficients: np.ndarray
    innovations: np.ndarray
    differences: np.ndarray

    def difference(self, start: float = 0.0, stop: float = 1.0) -> float:
        """How much higher the motivated network's values are in one part of the curve."""
        return float(_part(self.differences, start, stop).mean())

    def draw(self, steps: int, rng: np.random.Generator, start: float = 0.0, stop: float = 1.0) -> np.ndarray:
        """New noise ``(steps,)``: innovations of one part of the curve, from one share of it to another, permuted.

        Drawn with replacement, and coloured by the autoregression.
        """
        from scipy.signal import lfilter

        innovations = rng.choice(_part(self.innovations, start, stop).ravel(), steps + BURN_IN)
        return lfilter([1.0], np.r_[1.0, -self.coefficients], innovations)[BURN_IN:]


def noise_of(values: np.ndarray, motivated: np.ndarray) -> Noise:
    """The noise of a curve ``(n,)`` of at least `SEGMENTS` x 12 values; ``motivated`` says which network made each.

    The curve is cut into segments (a twentieth of it, 48 to 192 values), and a parabola is fitted to each and
    subtracted: what remains of a training curve's trend is far below its noise, whatever the curve's shape. The
    difference between the two networks is subtracted too. It is estimated given the values before: they decided which
    network trains, so that expanding where values are low by chance makes no difference.

    The order of the autoregression is a sixteenth of a segment; noise correlated for longer than a segment counts as
    trend.
    """
    width = min(int(np.clip(len(values) // 20, *WIDTHS)), len(values) // SEGMENTS)
    order = max(1, width // STEPS_A_COEFFICIENT)
    count = len(values) // width
    segments = values[len(values) - count * width:].reshape(count, width)
    detrending = _detrending(width)
    residuals = segments @ detrending
    switches = motivated[len(values) - count * width:].reshape(count, width) @ detrending
    differences = _network_differences(residuals, switches, order)
    residuals = residuals - differences[:, None] * switches
    noisy = (residuals * residuals).sum(1) > 1e-18 * (segments * segments).sum(1)
    if not noisy.any():
        return Noise(np.zeros(order), np.zeros((count, width - order)), differences)
    coefficients = _fit(residuals[noisy], detrending, order)
    innovations = _innovations(residuals, coefficients)
    # Scaled so that the noise changes from one value to the next as much as the curve does.
    autocorrelations, gain = _spectral(coefficients, width)
    changes = (np.diff(residuals) ** 2).mean()
    drawn = 2 * (1 - autocorrelations[1]) * gain * (innovations * innovations).mean()
    return Noise(coefficients, innovations * np.sqrt(changes / drawn), differences)


def _part(segments: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Segments from one share of a curve to another, at least one."""
    first = int(start * len(segments))
    return segments[first:max(first + 1, round(stop * len(segments)))]


def _innovations(segments: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Residuals of an autoregression on segments ``(segments, width)``: ``(segments, width - order)``."""
    order, width = len(coefficients), segments.shape[1]
    return segments[:, order:] - sum(coefficient * segments[:, order - lag:width - lag]
                                     for lag, coefficient in enumerate(coefficients, start=1))


def _detrending(width: int) -> np.ndarray:
    """Projection ``(width, width)`` that removes the parabola of a segment."""
    basis = np.linalg.qr(np.vander(np.linspace(-1, 1, width), 3))[0]
    return np.eye(width) - basis @ basis.T


def _network_differences(values: np.ndarray, switches: np.ndarray, order: int) -> np.ndarray:
    """Regression ``(segments,)`` of values on switches, both ``(segments, width)``, given the last values and switches.

    One for each tenth of the curve; a tenth with few switches is shrunk towards the whole curve's.
    """
    count, width = values.shape
    past = np.stack([each[:, order - lag:width - lag].ravel() for lag in range(1, order + 1)
                     for each in (values, switches)], axis=1)
    # What the past leaves of both; their regression is that of the whole (Frisch and Waugh 1933).
    now = np.stack([values[:, order:].ravel(), switches[:, order:].ravel()], axis=1)
    left = now - past @ np.linalg.lstsq(past, now, rcond=None)[0]
    value, switch = left.reshape(count, width - order, 2).transpose(2, 0, 1)
    shared, power = (switch * value).sum(1), (switch * switch).sum(1)
    overall = shared.sum() / max(1.0, power.sum())
    tenths = np.array_split(np.arange(count), max(1, min(10, count // SEGMENTS)))
    return np.concatenate([np.full(len(tenth), (shared[tenth].sum() + SHRINKAGE * overall)
                                   / (power[tenth].sum() + SHRINKAGE)) for tenth in tenths])


def _fit(residuals: np.ndarray, detrending: np.ndarray, order: int) -> np.ndarray:
    """Coefficients ``(order,)`` of the autoregression of noise whose trend the matrix ``detrending`` removed.

    The autocorrelations are medians over segments, so that a few segments in which the curve breaks (a drop of the
    learning rate) do not count. A parabola removes noise too, so they are corrected until noise of this autoregression
    would have the autocorrelations that were measured.
    """
    from scipy.linalg import toeplitz

    width = residuals.shape[1]
    powers = (residuals * residuals).sum(1)
    measured = np.array([np.median((residuals[:, :width - lag] * residuals[:, lag:]).sum(1) / powers)
                     for lag in range(order + 1)])
    coefficients = _autoregression(measured)
    for _ in range(CORRECTIONS):
        autocorrelations, _ = _spectral(coefficients, width)
        left = detrending @ toeplitz(autocorrelations) @ detrending
        expected = np.array([np.trace(left, lag) for lag in range(order + 1)]) / np.trace(left)
        coefficients = _autoregression(autocorrelations[:order + 1] + DAMPING * (measured - expected))
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
