"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) from timm, one draw a batch, with derived randomness."""

import numpy as np
from torch import Tensor

from motivation.data.augment.augmentation import Augmentation
from motivation.randomness import MIXING, derived_seed


class Mixing:
    """Mixes every image of a batch with the one at the same place from its end.

    Args:
        augmentation: its ``mixup``, ``cutmix``, ``mixup_prob`` and ``mixup_switch_prob``.
        num_classes: width of the soft targets.
        seed: of the draws.
    """

    def __init__(self, augmentation: Augmentation, num_classes: int, seed: int):
        from timm.data import Mixup

        # Smoothing is the loss's, where it holds for evaluation and probes too.
        self._mix = Mixup(augmentation.mixup, augmentation.cutmix, prob=augmentation.mixup_prob,
                          switch_prob=augmentation.mixup_switch_prob, label_smoothing=0.0, num_classes=num_classes)
        self._seed = seed

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Mixed images, and targets ``(N, classes)`` that sum to 1.

        Args:
            images: ``(N, C, H, W)``, N even; overwritten.
            labels: class indices ``(N,)``.
            epoch: of the batch.
            step: of the batch, in that epoch.
        """
        # timm draws from numpy's global generator: it is lent, and given back as it was.
        state = np.random.get_state()  # noqa: NPY002
        try:
            np.random.seed(derived_seed(self._seed, MIXING, epoch, step))  # noqa: NPY002
            return self._mix(images, labels)
        finally:
            np.random.set_state(state)  # noqa: NPY002
