"""Recovering accuracy after a swap: evaluate, recalibrate, anneal, finetune."""

from poolswap.adapt.data import Data, load_data
from poolswap.adapt.engine import check_folder
from poolswap.adapt.evaluate import Evaluation, evaluate
from poolswap.adapt.finetune import FinetuneResult, finetune, from_scratch
from poolswap.adapt.loaders import Loader, loaders
from poolswap.adapt.recalibrate import recalibrate
from poolswap.adapt.recipe import Recipe
from poolswap.adapt.recover import Recovered, Recovery, check_recipe, recover
from poolswap.adapt.state import EpochRow

__all__ = [
    "Data",
    "EpochRow",
    "Evaluation",
    "FinetuneResult",
    "Loader",
    "Recipe",
    "Recovered",
    "Recovery",
    "check_folder",
    "check_recipe",
    "evaluate",
    "finetune",
    "from_scratch",
    "load_data",
    "loaders",
    "recalibrate",
    "recover",
]
