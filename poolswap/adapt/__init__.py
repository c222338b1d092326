"""Recovering accuracy after a swap: evaluate, recalibrate, anneal, finetune."""

from poolswap.adapt.beside import Recalibration, recalibrate_beside_stock
from poolswap.adapt.content import content_digest
from poolswap.adapt.data import Data, check_data, load_data
from poolswap.adapt.engine import check_folder
from poolswap.adapt.evaluate import Answers, Evaluation, evaluate
from poolswap.adapt.finetune import FinetuneResult, finetune, from_scratch
from poolswap.adapt.grouping import image_groups
from poolswap.adapt.loaders import Loader, loaders, make_loader
from poolswap.adapt.recalibrate import recalibrate
from poolswap.adapt.recipe import Recipe
from poolswap.adapt.recover import Recovered, Recovery, check_recipe, recover
from poolswap.adapt.state import EpochRow

__all__ = [
    "Answers",
    "Data",
    "EpochRow",
    "Evaluation",
    "FinetuneResult",
    "Loader",
    "Recalibration",
    "Recipe",
    "Recovered",
    "Recovery",
    "check_data",
    "check_folder",
    "check_recipe",
    "content_digest",
    "evaluate",
    "finetune",
    "from_scratch",
    "image_groups",
    "load_data",
    "loaders",
    "make_loader",
    "recalibrate",
    "recalibrate_beside_stock",
    "recover",
]
