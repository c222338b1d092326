"""The operators that come with poolswap, by name. What each computes, and whose it is, its class says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from poolswap.nn.ada import AdaPool, EDSCWPool
from poolswap.nn.aps import APSPool
from poolswap.nn.blur import BlurPool
from poolswap.nn.dpp import DPPool
from poolswap.nn.gated import GatedPool
from poolswap.nn.gem import GeMHead, GeMPool
from poolswap.nn.lip import LIPool
from poolswap.nn.lp import LpPool
from poolswap.nn.lse import LSEHead, LSEPool
from poolswap.nn.mixed import MixedPool
from poolswap.nn.roi import soft_region
from poolswap.nn.s3 import S3Pool
from poolswap.nn.simpool import SimPoolHead
from poolswap.nn.soft import SoftPool, soft_head
from poolswap.nn.sparse import Entmax15Head, Entmax15Pool, SparsemaxHead, SparsemaxPool
from poolswap.nn.spp import SpatialPyramidPool
from poolswap.nn.stochastic import StochasticPool
from poolswap.nn.stock import AvgPool, MaxPool
from poolswap.operators.operator import Operator

_ALL = (
    Operator("soft", SoftPool, soft_head, soft_region),
    Operator("max", MaxPool),
    Operator("avg", AvgPool),
    Operator("lp", LpPool),
    Operator("gem", GeMPool, GeMHead),
    Operator("lse", LSEPool, LSEHead),
    Operator("sparsemax", SparsemaxPool, SparsemaxHead),
    Operator("entmax15", Entmax15Pool, Entmax15Head),
    Operator("mixed", MixedPool),
    Operator("gated", GatedPool),
    Operator("stochastic", StochasticPool),
    Operator("s3", S3Pool),
    Operator("dpp", DPPool),
    Operator("lip", LIPool),
    Operator("em", SoftPool, soft_head, soft_region),  # its name in AdaPool
    Operator("edscw", EDSCWPool),
    Operator("ada", AdaPool),
    Operator("blur", BlurPool),
    Operator("aps", APSPool),
    Operator("simpool", head=SimPoolHead),
    Operator("spp", head=SpatialPyramidPool),
)
OPERATORS: Mapping[str, Operator] = MappingProxyType({operator.name: operator for operator in _ALL})
