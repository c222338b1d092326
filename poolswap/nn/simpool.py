"""SimPool: a map's mean attends to its elements, as the head of convolutional networks and of transformers alike.

Psomas, Kakogeorgiou, Karantzalos, Avrithis, "Keep it SimPool: who said supervised transformers suffer from attention
deficit?", ICCV 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.nn.head import HeadPool
from poolswap.nn.site import HeadSite

_EPS = 1e-6
_NORM_EPS = 1e-5


class SimPoolHead(HeadPool):
    """y = sum_i a_i n_i, a = softmax(<Wq mean(x), Wk n_i> / sqrt(C)), n_i = LayerNorm(x_i).

    x_i are the elements of the map, vectors of C channels; the LayerNorm is over channels. With `gamma` (2 for
    convolutional networks in the paper, 1.25 for transformers) y = (sum_i a_i v_i^gamma)^(1/gamma), v_i = n_i - min n
    + 1e-6, the minimum over the whole map. Parameters: `query` and `key` (C, C), drawn as nn.Linear draws its weight,
    `scale` and `shift` (C,) of the LayerNorm. No start is another head: y is normalised. Raises ValueError for a gamma
    that is not positive.
    """

    paper = "Psomas et al., ICCV 2023"

    def __init__(self, site: HeadSite, *, gamma: float | None = None) -> None:
        super().__init__(site)
        if gamma is not None and not (math.isfinite(gamma) and gamma > 0):
            raise ValueError(f"gamma must be positive, not {gamma:g}")
        self.gamma = gamma
        self.channels = channels = site.need_channels()
        self.query, self.key = (nn.Parameter(_drawn(channels)) for _ in range(2))
        self.scale, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> (N, C), the mean of each map's normalised elements under its attention."""
        elements = x.flatten(2).transpose(1, 2)
        normed = F.layer_norm(elements, (self.channels,), self.scale.to(x.dtype), self.shift.to(x.dtype), _NORM_EPS)
        logits = normed @ self.question(elements.mean(1)).unsqueeze(-1)  # (N, L, 1)
        if self.gamma is None:
            return (logits.softmax(1) * normed).sum(1)
        # Logarithms until the end, and the largest taken out, so that no power overflows.
        values = (normed - normed.amin((1, 2), keepdim=True) + _EPS).log()
        top = values.detach().amax(1, keepdim=True)
        powers = logits.log_softmax(1) + self.gamma * (values - top)
        return top.squeeze(1).exp() * (powers.logsumexp(1) / self.gamma).exp()

    def question(self, mean: Tensor) -> Tensor:
        """(N, C) -> (N, C), what elements are multiplied with: Wk^T Wq mean / sqrt(C), so that no keys are formed."""
        asked = mean @ self.query.to(mean.dtype).T @ self.key.to(mean.dtype)
        return asked / math.sqrt(self.channels)

    def extra_repr(self) -> str:
        """Axes or grid, and gamma."""
        return super().extra_repr() + ("" if self.gamma is None else f", gamma={self.gamma:g}")


def _drawn(channels: int) -> Tensor:
    bound = channels**-0.5
    return torch.empty(channels, channels).uniform_(-bound, bound)
