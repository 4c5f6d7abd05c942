"""The noise of a training curve, without its trend: an autoregression that can be drawn from again."""

from typing import NamedTuple

import numpy as np

SEGMENTS = 8                # fewest segments that a fit is worth anything with
STRETCH = (48, 192)         # shortest and longest segment, where the curve has so many
STEPS_A_COEFFICIENT = 16
BURN_IN = 256
CORRECTIONS, DAMPING = 30, 0.5
STABLE = 0.97, 0.5           # largest partial autocorrelation, of lag 1 and beyond: a random walk is cut down to it


class Noise(NamedTuple):
    """What a curve does beside its trend.

    Attributes:
        coefficients: ``(order,)`` of the autoregression.
        innovations: ``(segments, width - order)`` what it does not foresee, segments in order of time.
    """

    coefficients: np.ndarray
    innovations: np.ndarray

    def draw(self, steps: int, rng: np.random.Generator, start: float = 0.0, stop: float = 1.0) -> np.ndarray:
        """New noise ``(steps,)``: innovations of one part of the curve, from one share of it to another, permuted.

        Drawn with replacement, and coloured by the autoregression.
        """
        from scipy.signal import lfilter

        count = len(self.innovations)
        pool = self.innovations[int(start * count):max(int(start * count) + 1, round(stop * count))].ravel()
        innovations = rng.choice(pool, steps + BURN_IN)
        return lfilter([1.0], np.r_[1.0, -self.coefficients], innovations)[BURN_IN:]


def noise_of(values: np.ndarray, motivated: np.ndarray) -> Noise:
    """The noise of a curve ``(n,)`` of at least `SEGMENTS` x 12 values; ``motivated`` says which network made each.

    The curve is cut into segments (a twentieth of it, 48 to 192 values), and each loses a parabola of its own: what is
    left of a training curve's trend in it is far below its noise, whatever the curve's shape. A difference between the
    two networks goes too, in each tenth of the curve, where it is above three deviations. The autocorrelations are
    medians over segments, so that a few segments in which the curve breaks (a drop of the learning rate) do not count.
    A parabola takes noise away too, so they are corrected until noise of this autoregression would show what was
    seen. Its order is a sixteenth of a segment: longer memories than a segment are taken for trend.
    """
    from scipy.linalg import toeplitz

    width = min(int(np.clip(len(values) // 20, *STRETCH)), len(values) // SEGMENTS)
    order = max(1, width // STEPS_A_COEFFICIENT)
    count = len(values) // width
    segments = values[len(values) - count * width:].reshape(count, width)
    basis = np.linalg.qr(np.vander(np.linspace(-1, 1, width), 3))[0]
    away = np.eye(width) - basis @ basis.T
    residuals = segments @ away
    switches = motivated[len(values) - count * width:].reshape(count, width) @ away
    for part in np.array_split(np.arange(count), max(1, min(10, count // SEGMENTS))):
        switched, left = switches[part], residuals[part]
        apart = (switched * left).sum() / max(1.0, (switched * switched).sum())
        left = left - apart * switched
        # A small difference may come of expanding where the loss is low by chance.
        if apart * apart > 9 * (left * left).mean():
            residuals[part] = left
    powers = (residuals * residuals).sum(1)
    noisy = powers > 1e-18 * (segments * segments).sum(1)
    if not noisy.any():
        return Noise(np.zeros(order), np.zeros((count, width - order)))
    seen = np.array([np.median((residuals[noisy, :width - lag] * residuals[noisy, lag:]).sum(1) / powers[noisy])
                     for lag in range(order + 1)])
    coefficients = _autoregression(seen)
    for _ in range(CORRECTIONS):
        autocorrelations, _ = _spectral(coefficients, width)
        left = away @ toeplitz(autocorrelations) @ away
        expected = np.array([np.trace(left, lag) for lag in range(order + 1)]) / np.trace(left)
        coefficients = _autoregression(autocorrelations[:order + 1] + DAMPING * (seen - expected))
    foreseen = sum(coefficient * residuals[:, order - lag:width - lag]
                   for lag, coefficient in enumerate(coefficients, start=1))
    innovations = residuals[:, order:] - foreseen
    # As large as makes the noise change from one value to the next as the curve does.
    autocorrelations, gain = _spectral(coefficients, width)
    changes = (np.diff(residuals) ** 2).mean()
    drawn = 2 * (1 - autocorrelations[1]) * gain * (innovations * innovations).mean()
    return Noise(coefficients, innovations * np.sqrt(changes / drawn))


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
