"""What an ablation asks: one document, in YAML or JSON, that defines every trial of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from poolswap.errors import InputError
from poolswap.operators.registry import split_operators
from poolswap.settings import Settings

Order = Literal["forward", "backward", "single"]
Adapt = Literal["none", "recalibrate", "finetune", "scratch"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

_MOST_SEEDS = 10_000

_CODE = re.compile(r"\.py\b")
_RANGE = re.compile(r"(\d{1,9}|all)(?:\.\.(\d{1,9}|all))?")


class Running(BaseModel):
    """How trials run: where readers keep their data, whether they may fetch it, and what may be used and trusted.

    `keep_weights` keeps each trial's network beside its result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path | None = None
    download: bool = False
    workers: int = Field(default=0, ge=0)
    on_bad_image: Literal["fatal", "skip", "count"] = "fatal"
    device: str | None = None
    trust_code: bool = False
    keep_weights: bool = False

    @property
    def place(self) -> dict[str, Any]:
        """What `load_data` takes of it."""
        return {"root": self.root, "download": self.download}

    @property
    def reading(self) -> dict[str, Any]:
        """What `loaders` and recipes take of it."""
        return {"workers": self.workers, "on_bad_image": self.on_bad_image}


class Until(BaseModel):
    """Seeds are added, from `first` to `most`, until the interval of every trained variant is narrower than `width`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: float = Field(gt=0, le=200)
    first: int = Field(ge=2, le=_MOST_SEEDS)
    most: int = Field(ge=2, le=_MOST_SEEDS)


class Study(Settings):
    """The model, the data, and the grid: how many layers, from which end, by which operator, adapted how, how often.

    `counts` are numbers of layers, as in "0..all" or "1,3,all"; in order "single" the number n is the n-th layer alone.
    `operators` may be given as text, "soft,lp:p=3" or "all". `mixes` are more variants, with an operator for each of
    their layers: "maxpool=soft; layer2.0.pool=lp:p=3". `split` are the images that are judged on, `transform` arguments
    of the images' transforms (`poolswap.adapt.load_data`). `recipe` are fields of `poolswap.adapt.Recipe`;
    `recalibrate_batches` of None is one pass over the training images. What the report makes of the trials, and their
    keys do not depend on: `group` says which images belong together (`poolswap.adapt.image_groups`), `margin` how many
    points of top-1 do not matter, `until` when to stop adding seeds (`poolswap.ablate.sequential`), `halving` how many
    variants of each adaptation get all seeds (`poolswap.ablate.halving`). Neither do they depend on `running`, which
    says where and how.

    `seeds` may be given as a number N for 0 to N-1. `weights` are "random", "pretrained" or the path of a state dict.
    From one such base the seeds vary the order of the images and what augmentation and operators draw, and nothing
    else. With a list, a base for each seed, they vary the base too, and what is not adapted is repeated as well.
    """

    noun: ClassVar[str] = "study"
    example: ClassVar[str] = "model: resnet18"

    model: str
    data: str
    split: Literal["val", "test"] = "val"
    transform: dict[str, Any] = Field(default_factory=dict)
    weights: tuple[str, ...] = Field(default=("random",), min_length=1, max_length=_MOST_SEEDS)
    num_classes: int | None = Field(default=None, ge=1)
    in_chans: int | None = Field(default=None, ge=1)
    input_size: tuple[int, ...] | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    counts: str = "0..all"
    order: tuple[Order, ...] = Field(default=("forward",), min_length=1)
    operators: tuple[str, ...] = Field(default=("soft",), min_length=1)
    adapt: tuple[Adapt, ...] = Field(default=("none",), min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1, max_length=_MOST_SEEDS)
    op: Literal["max", "avg"] | None = None
    exclude: tuple[str, ...] = ()
    include_global: bool = False
    mixes: tuple[str, ...] = ()
    batch_size: int = Field(default=64, ge=1)
    recalibrate_batches: int | None = Field(default=None, ge=1)
    recipe: dict[str, Any] = Field(default_factory=dict)
    group: str | None = None
    margin: float = Field(default=0.5, gt=0, le=100)
    until: Until | None = Field(default=None, examples=[{"width": 2, "first": 5, "most": 20}])
    halving: int | None = Field(default=None, ge=1)
    running: Running = Field(default_factory=Running)

    @field_validator("weights", "order", "adapt", "exclude", "mixes", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("operators", mode="before")
    @classmethod
    def _operators_as_typed(cls, value: Any) -> Any:
        return split_operators(value) if isinstance(value, str) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_of_seeds(cls, value: Any) -> Any:
        if not isinstance(value, int):
            return value
        if value > _MOST_SEEDS:
            raise ValueError(f"a study has at most {_MOST_SEEDS:,} seeds")
        return tuple(range(value))

    @field_validator("order", "operators", "adapt", "seeds")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("counts", mode="before")
    @classmethod
    def _counts_are_text(cls, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    @model_validator(mode="after")
    def _a_base_for_each_seed(self) -> Self:
        if len(self.weights) not in (1, len(self.seeds)):
            raise ValueError(f"{len(self.weights)} weights for {len(self.seeds)} seeds: give one, or one for each seed")
        if len(self.weights) > 1 and {"random", "pretrained"} & {*self.weights}:
            raise ValueError("several weights are files, one for each seed")
        if len({*self.weights}) < len(self.weights):
            raise ValueError("a file is given for two seeds: from one base these are one")
        return self

    def base(self, seed: int) -> str:
        """The weights that this seed starts from."""
        return self.weights[self.seeds.index(seed) % len(self.weights)]

    @staticmethod
    def check_code(fields: Mapping[str, Any], *, trust_code: bool) -> None:
        """Raise InputError where fields from a file name Python files, unless they are trusted.

        A study is data: whoever wrote it, and not who runs it, chose the file.
        """
        named = [fields.get("model"), *_listed(fields.get("operators")), *_listed(fields.get("mixes"))]
        code = next((name for name in named if isinstance(name, str) and _CODE.search(name)), None)
        if code is not None and not trust_code:
            raise InputError(
                f"the study names {code}, and running it would run that file",
                "if you trust the file, run the study with trust_code=True",
            )

    def dumps(self) -> str:
        """The whole study as YAML that `read` takes."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def parse_counts(text: str, available: int) -> tuple[int, ...]:
    """ "0..all", "1,3,all" -> sorted counts of at most `available`, without 0: the control is always there.

    Raises InputError for anything else.
    """
    counts: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InputError(
                f"counts={text!r} is not a list of counts", "write for example counts='0..all' or counts='1,3'"
            )
        first, last = (available if end == "all" else int(end) for end in (match[1], match[2] or match[1]))
        if first > last:
            raise InputError(f"counts={part.strip()!r} runs backwards", f"write counts='{last}..{first}'")
        if last > available:
            raise InputError(
                f"counts={part.strip()!r} asks for up to {last} of {available} layers",
                f"counts go from 0 to {available}; poolswap inspect MODEL lists the layers",
            )
        counts.update(range(first, last + 1))
    return tuple(sorted(counts - {0}))
