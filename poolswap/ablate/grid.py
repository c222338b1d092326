"""Study and sites -> the trials, each with the key that its results are kept under."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from poolswap.ablate.mix import mix_text, operators_of, parse_mix
from poolswap.ablate.study import Adapt, Order, Running, Study, parse_counts
from poolswap.adapt.content import content_digest
from poolswap.adapt.data import Split, load_data
from poolswap.errors import InputError, NothingToReplaceError
from poolswap.load import load_model
from poolswap.models.userfile import split_reference
from poolswap.models.weights import sha256_of
from poolswap.operators.builtin import OPERATORS
from poolswap.operators.registry import parse_operator
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import PoolSite, find_pools
from poolswap.versions import versions

Place = Order | Literal["mixed"]

_TRAINED: tuple[Adapt, ...] = ("finetune", "scratch")
_BESIDES = {"running", "trained", "costs", "probe"}
_DECISIVE = ("poolswap", "torch", "torchvision", "timm")


class Probe(BaseModel):
    """Layers of the control of which each is replaced alone by `to`, after all, and judged as it is."""

    model_config = ConfigDict(frozen=True)

    to: str
    paths: tuple[str, ...]


class Trial(BaseModel):
    """One model to adapt and to measure: everything that its numbers depend on, and how to run it.

    `content` are digests of the images that are looked at, by part; `paths` are the layers that are replaced, none for
    the control; `files` are digests of the files that the model, the weights and the operator come from; `versions` are
    those of the libraries. The key does not depend on how the trial is run, and on what is measured besides: `running`,
    `trained` (the file of a network that was adapted already), `costs` (whether to measure time and memory, which are
    the same for all trials of an architecture) and `probe` (see `poolswap.ablate.alone`).
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model: str
    data: str
    split: Literal["val", "test"]
    content: dict[str, str]
    transform: dict[str, Any]
    weights: str
    files: dict[str, str]
    num_classes: int | None
    in_chans: int | None
    input_size: tuple[int, ...] | None
    model_args: dict[str, Any]
    paths: tuple[str, ...]
    to: str | None
    adapt: Adapt
    seed: int
    batch_size: int
    recalibrate_batches: int | None
    recipe: dict[str, Any]
    versions: dict[str, str]
    running: Running = Field(default_factory=Running)
    trained: Path | None = None
    costs: bool = True
    probe: Probe | None = None

    @property
    def key(self) -> str:
        """A short digest of what the numbers depend on: the name of the trial's folder."""
        text = json.dumps(self.model_dump(mode="json", exclude=_BESIDES), sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]


class Cell(BaseModel):
    """A trial's place in the grid. Two cells may share a trial: the first layer alone is also the first of a row.

    `layers` is how many are replaced, 0 for the control; `order` is None there.
    """

    model_config = ConfigDict(frozen=True)

    layers: int
    order: Place | None
    to: str | None
    adapt: Adapt
    seed: int
    paths: tuple[str, ...]
    key: str


class Layer(BaseModel):
    """A layer that can be replaced, as the report draws it."""

    model_config = ConfigDict(frozen=True)

    path: str
    pooling: str
    size: tuple[Annotated[int, Field(ge=1)], ...] = Field(description="channels and sides of its output")


class Grid(BaseModel):
    """The layers in call order, the cells, and the trials by key."""

    model_config = ConfigDict(frozen=True)

    layers: tuple[Layer, ...]
    cells: tuple[Cell, ...]
    trials: dict[Annotated[str, Field(pattern=r"\A[0-9a-f]{16}\z")], Trial]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Every cell has its trial, and its control; a grid is also read from a file."""
        controls = {cell.adapt for cell in self.cells if cell.layers == 0}
        for cell in self.cells:
            if cell.key not in self.trials or cell.adapt not in controls or len(cell.paths) != cell.layers:
                raise ValueError(f"the cell {cell.key} has no trial, no control, or other layers than it says")
        return self

    def shard(self, number: int, of: int) -> dict[str, Trial]:
        """The trials of part `number` (from 1) of `of`. The parts depend on the keys alone, and have no trial twice."""
        mine = set(sorted(self.trials)[number - 1 :: of])
        return {key: trial for key, trial in self.trials.items() if key in mine}


def grid_of(study: Study) -> Grid:
    """`make_grid` with the sites of the study's model and its images; no weights are read but a checkpoint's own.

    Raises InputError where two parts of the data are the same images.
    """
    return make_grid(study, sites_of(study), contents_of(study))


def sites_of(study: Study) -> list[PoolSite]:
    """The pooling sites of the study's model, those too that it leaves alone."""
    model, spec = load_model(
        study.model,
        num_classes=study.num_classes,
        in_chans=study.in_chans,
        input_size=study.input_size,
        model_args=study.model_args,
        trust_code=study.running.trust_code,
    )
    return find_pools(model, spec.input_size)


def replaceable(study: Study, sites: Sequence[PoolSite]) -> dict[str, PoolSite]:
    """The sites that the study may replace, by path. Raises NothingToReplaceError where there is none."""
    if not sites:
        raise NothingToReplaceError(
            "nothing to replace: the model's forward calls no pooling",
            "poolswap convert --include convs replaces strided convolutions, which no study does",
        )
    everything = make_plan(sites, "all", op=study.op, exclude=study.exclude, include_global=study.include_global)
    return {swap.site.path: swap.site for swap in everything.swaps}


def parts_of(adapt: Adapt, split: str) -> tuple[Split, ...]:
    """The parts of the data that an adaptation looks at, those that it is judged on last."""
    looked_at = {"none": (), "recalibrate": ("train",)}.get(adapt, ("train", "val"))
    return tuple(dict.fromkeys((*looked_at, split)))  # type: ignore[arg-type]


def contents_of(study: Study) -> dict[str, str]:
    """Digests of the parts of the data that the study looks at. Raises InputError where two are the same images."""
    splits = dict.fromkeys(part for adapt in study.adapt for part in parts_of(adapt, study.split))
    data = load_data(study.data, num_classes=study.num_classes, splits=list(splits), **study.running.place)
    found: dict[str, str] = {part: content_digest(data.images(part)) for part in splits}
    for one, other in combinations(found, 2):
        if found[one] == found[other]:
            raise InputError(
                f"the {one} and {other} images of {study.data} are the same", "judge on images that nothing has seen"
            )
    return found


def make_grid(study: Study, sites: Sequence[PoolSite], contents: Mapping[str, str] | None = None) -> Grid:
    """Every trial that the study asks for, the controls first. `contents` are digests of the parts of the data.

    Raises NothingToReplaceError where the model has no such layer, InputError where the study does not fit it.
    """
    _check(study)
    places = replaceable(study, sites)
    base, probe = _common(study), _probe(study, tuple(places))
    digests = _Digests()
    cells: list[Cell] = []
    trials: dict[str, Trial] = {}
    measured = set()
    for layers, order, to, paths in dict.fromkeys(_rows(study, tuple(places))):  # a mix may be given twice
        for adapt in study.adapt:
            # Nothing is random where nothing is adapted: one trial of a base says it all.
            for seed in study.seeds[: len(study.weights)] if adapt == "none" else study.seeds:
                fields = {**base, **_adaptation(study, adapt, seed), "paths": paths, "to": to}
                fields["files"] = digests.of(study.model, fields["weights"], *(operators_of(to) if to else ()))
                fields["content"] = {part: (contents or {}).get(part, "") for part in parts_of(adapt, study.split)}
                trial = Trial(**fields, costs=(to, paths) not in measured, probe=None if layers else probe)
                measured.add((to, paths))
                trials.setdefault(trial.key, trial)
                cells.append(
                    Cell(layers=layers, order=order, to=to, adapt=adapt, seed=seed, paths=paths, key=trial.key)
                )
    return Grid(layers=tuple(_layer(site) for site in places.values()), cells=tuple(cells), trials=trials)


def _probe(study: Study, paths: tuple[str, ...]) -> Probe | None:
    """Of the first operator that comes with poolswap: one of the user's own must not take the control down with it."""
    own = next((to for to in study.operators if to.partition(":")[0] in OPERATORS), None)
    return Probe(to=own, paths=paths) if own else None


def _rows(study: Study, paths: tuple[str, ...]) -> Iterator[tuple[int, Place | None, str | None, tuple[str, ...]]]:
    yield 0, None, None, ()
    counts = parse_counts(study.counts, len(paths))
    for order in study.order:
        for to in study.operators:
            for n in counts:
                if order == "single":
                    yield 1, order, to, paths[n - 1 : n]
                else:
                    yield n, order, to, paths[:n] if order == "forward" else paths[-n:]
    for mix in study.mixes:
        operators = parse_mix(mix)
        unknown = next((path for path in operators if path not in paths), None)
        if unknown is not None:
            raise InputError(
                f"the mix names {unknown}, which is no layer of the study: {mix}", "poolswap inspect MODEL"
            )
        chosen = tuple(path for path in paths if path in operators)
        alike = set(operators.values())
        to = alike.pop() if len(alike) == 1 else mix_text({path: operators[path] for path in chosen})
        yield len(chosen), "mixed", to, chosen


def _check(study: Study) -> None:
    for to in (*study.operators, *(one for mix in study.mixes for one in operators_of(mix))):
        parse_operator(to)
    if study.weights == ("random",) and not study.model.endswith(".safetensors"):
        pointless = [adapt for adapt in study.adapt if adapt != "scratch"]
        if pointless:
            raise InputError(
                f"adapt {pointless[0]} starts from trained weights, and these are random",
                "give weights='pretrained' or weights=FILE, or train with adapt='scratch'",
            )


def _common(study: Study) -> dict[str, Any]:
    return {
        "model": study.model,
        "data": study.data,
        "split": study.split,
        "transform": study.transform,
        "num_classes": study.num_classes,
        "in_chans": study.in_chans,
        "input_size": study.input_size,
        "model_args": study.model_args,
        "batch_size": study.batch_size,
        "versions": {name: found for name, found in versions().items() if name in _DECISIVE},
        "running": study.running,
    }


def _adaptation(study: Study, adapt: Adapt, seed: int) -> dict[str, Any]:
    """The fields that only some adaptations read are left empty for the others, so that they do not split a trial."""
    return {
        "adapt": adapt,
        "seed": 0 if adapt == "none" else seed,
        "weights": "random" if adapt == "scratch" else study.base(seed),
        "recalibrate_batches": study.recalibrate_batches if adapt == "recalibrate" else None,
        "recipe": study.recipe if adapt in _TRAINED else {},
    }


class _Digests:
    """Digests of the local files that decide the numbers, each read once: a changed file makes a new trial."""

    def __init__(self) -> None:
        self._found: dict[Path, str] = {}

    def of(self, *references: str | None) -> dict[str, str]:
        named = {}
        for reference in filter(None, references):
            split = split_reference(reference)
            path = split[0] if split else Path(reference)
            if path.suffix and path.is_file():
                if path not in self._found:
                    self._found[path] = sha256_of(path)
                named[reference] = self._found[path]
        return named


def _layer(site: PoolSite) -> Layer:
    return Layer(path=site.path, pooling=f"{site.op} {site.call or '?'}", size=site.output_shape[1:])
