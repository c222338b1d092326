"""Which operator at which site: measured site by site, chosen under a budget, confirmed on images of their own."""

from poolswap.search.choose import Budget, Candidate, choose
from poolswap.search.search import Found, search

__all__ = ["Budget", "Candidate", "Found", "choose", "search"]
