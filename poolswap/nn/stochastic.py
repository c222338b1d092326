"""Stochastic pooling: an element drawn in proportion to its activation.

Zeiler, Fergus, "Stochastic pooling for regularization of deep convolutional neural networks", ICLR 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poolswap.nn.windows import PlainPool, windows_of


class StochasticPool(PlainPool):
    """x_i with probability p_i = relu(x_i) / sum_j relu(x_j); sum_i p_i x_i in eval mode.

    A window with no positive element gives 0. Every element of the output draws for itself, from torch's generator of
    x's device; the gradient of a draw goes to the element drawn.
    """

    paper = "Zeiler and Fergus, ICLR 2013"
    draws = True

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> a drawn element of each window, or their weighted mean."""
        positive = windows_of(x, self.geometry).relu()
        top = positive.detach().amax(0)
        share = positive / torch.where(top > 0, top, 1.0)  # a factor of p_i that cancels; keeps sums in range
        if not self.training:
            total = share.sum(0)
            return (share * positive).sum(0) / torch.where(top > 0, total, 1.0)
        reached = share.detach().cumsum(0)
        point = torch.rand_like(top) * reached[-1]
        # The first element whose cumulative sum exceeds the point has p_i > 0; where no element has, all are 0.
        drawn = (reached <= point).sum(0, keepdim=True).clamp(max=len(positive) - 1)
        return positive.gather(0, drawn).squeeze(0)
