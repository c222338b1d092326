"""SoftPool as torch.library operators, with a reference and one module per backend."""

from poolswap.ops.backend import BackendError, use_backend
from poolswap.ops.soft_pool import eager_soft_pool, is_eager, observed_soft_pool, soft_pool

__all__ = ["BackendError", "eager_soft_pool", "is_eager", "observed_soft_pool", "soft_pool", "use_backend"]
