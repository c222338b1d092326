"""timm's attention pool as an operator of one's own: what its CLIP ResNets have in the place of a head's average.

poolswap convert test_resnet --to benchmarks/attention_head.py:AttentionHead --include-global
"""

from __future__ import annotations

from timm.layers import RotAttentionPool2d
from torch import Tensor

from poolswap.nn import HeadPool, HeadSite


class AttentionHead(HeadPool):
    """The mean's answer among all elements in one head of self-attention, with rotary positions, projected."""

    paper = "Radford et al., ICML 2021"

    def __init__(self, site: HeadSite) -> None:
        super().__init__(site)
        channels = site.need_channels()
        self.attention = RotAttentionPool2d(channels, num_heads=1, head_dim=channels)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C)."""
        pooled: Tensor = self.attention(x)
        return pooled
