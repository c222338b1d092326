"""The runs folder: one directory a trial, named by its key, written so that a kill at any moment costs only that trial.

RUN/study.yaml                the study, with every default
RUN/grid.json                 its layers, cells and trials
RUN/groups.json               the group of each image, or null where each stands for itself
RUN/trials/KEY/trial.json     what defines the trial
RUN/trials/KEY/result.json    what was measured, or
RUN/trials/KEY/failure.json   what went wrong
RUN/trials/KEY/log.txt        what was printed meanwhile
RUN/trials/KEY/weights.safetensors    the network, where it is to be kept
RUN/trials/KEY/training/      checkpoints, while it trains
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from poolswap.ablate.costs import PassCost
from poolswap.ablate.grid import Grid, Trial
from poolswap.ablate.record import Record
from poolswap.ablate.study import Study
from poolswap.adapt.state import EpochRow
from poolswap.errors import InputError
from poolswap.files import check_folder_place, sweep, write_text

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs off one trial, which costs time and no result
    fcntl = None  # type: ignore[assignment]

WEIGHTS = "weights.safetensors"

_LARGEST = 64 * 2**20  # bytes of a document
_Document = TypeVar("_Document", bound=BaseModel)
_GROUPS: TypeAdapter[tuple[str, ...] | None] = TypeAdapter(tuple[str, ...] | None)
_ROUNDING = 1e-6  # points of top-1


class SiteMove(BaseModel):
    """How far one replaced layer's output moved, fed what the stock layer was fed (`poolswap.surgery.drift`)."""

    model_config = ConfigDict(frozen=True)

    path: str
    local: float | None


class Alone(BaseModel):
    """What replacing one layer of the adapted control costs, on the images that are judged on: a measured sensitivity.

    `top1` is the change in percentage points, `loss` in nats.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    path: str
    to: str
    top1: float
    loss: float


class Result(BaseModel):
    """What one trial measured, as `poolswap.adapt.Evaluation` says it, and `record`, the same image by image.

    `key` is the trial's. `curve` are the epochs where it was trained. `costs` are against the unmodified model,
    measured in turns with it; `drift` is the outputs' before any adaptation.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    key: str = ""
    top1: float = Field(ge=0, le=100)
    top5: float | None = Field(ge=0, le=100)
    loss: float
    ece: float = Field(ge=0, le=1)
    shift_consistency: float | None
    record: Record
    curve: tuple[EpochRow, ...] = ()
    costs: tuple[PassCost, ...]
    parameters: int = Field(ge=0)
    drift: float | None
    sites: tuple[SiteMove, ...]
    alone: tuple[Alone, ...] = ()
    seconds: float
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _agrees_with_its_record(self) -> Self:
        if abs(self.top1 - 100 * self.record.values("correct").mean()) > _ROUNDING:
            raise ValueError("top1 is not that of its record")
        return self


class Failure(BaseModel):
    """Why a trial has no result."""

    model_config = ConfigDict(frozen=True)

    error: str
    traceback: str


class RunFolder:
    """The files of one ablation."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def check(self) -> None:
        """Raise InputError where no run can go: into a file, a folder of something else, or one with links in it."""
        check_folder_place(self.path)
        if self.path.exists() and not (self.path / "study.yaml").is_file() and any(self.path.iterdir()):
            raise InputError(f"{self.path} is not a runs folder and is not empty", "name another folder")
        trials = self.path / "trials"
        for path in (trials, *trials.rglob("*")):
            if path.is_symlink():  # a folder that somebody else made could lead a run out of it
                raise InputError(f"{path} is a link, and no run makes one", "remove it, or name another folder")

    def open(self, study: Study, grid: Grid, groups: Sequence[str] | None = None) -> None:
        """Make the folder, or go on in one: results of an earlier study stay, and are used where the keys agree.

        `groups` are those of the images that are evaluated, as `poolswap.adapt.image_groups` gives them. Raises
        InputError as `check` does.
        """
        self.check()
        trials = self.path / "trials"
        trials.mkdir(parents=True, exist_ok=True)
        for directory in trials.iterdir():
            sweep(directory)
        write_text(self.path / "grid.json", grid.model_dump_json(indent=1), force=True)
        write_text(self.path / "groups.json", json.dumps(groups), force=True)
        write_text(self.path / "study.yaml", study.dumps(), force=True)

    def study(self) -> Study:
        """The study that was run last. Raises InputError where there is none."""
        path = self.path / "study.yaml"
        if not path.is_file():
            raise InputError(f"{self.path} is not a runs folder: it has no study.yaml", "make one: poolswap ablate")
        return Study.read(path)

    def grid(self) -> Grid:
        """Its grid. Raises InputError where there is none, or it is damaged."""
        self.study()
        found = _read(Grid, self.path / "grid.json")
        if found is None:
            raise InputError(f"{self.path / 'grid.json'} is missing or damaged", "run poolswap ablate again")
        return found

    def groups(self) -> tuple[str, ...] | None:
        """The group of each image of the data set; None where each stands for itself.

        Raises InputError if that is not known: without its groups a report would be too sure.
        """
        path = self.path / "groups.json"
        try:
            return _GROUPS.validate_json(_bytes(path))
        except (OSError, ValidationError):
            raise InputError(f"{path} is missing or damaged", "run poolswap ablate again") from None

    def trial(self, key: str) -> Path:
        """The directory of a trial."""
        return self.path / "trials" / key

    def result(self, key: str) -> Result | None:
        """The result of a trial; None where it has none, or a file that does not read or is another trial's."""
        found = _read(Result, self.trial(key) / "result.json")
        return found if found is not None and found.key == key else None

    def damaged(self, key: str) -> bool:
        """Whether there is a file of a result, and none in it."""
        return (self.trial(key) / "result.json").exists() and self.result(key) is None

    def failure(self, key: str) -> Failure | None:
        """The failure of a trial that has no result."""
        return _read(Failure, self.trial(key) / "failure.json")

    def write_result(self, key: str, result: Result) -> None:
        """Keep the result, and drop what only an unfinished trial needs."""
        own = result.model_copy(update={"key": key})
        write_text(self.trial(key) / "result.json", own.model_dump_json(indent=1), force=True)
        (self.trial(key) / "failure.json").unlink(missing_ok=True)
        shutil.rmtree(self.trial(key) / "training", ignore_errors=True)

    def write_failure(self, key: str, failure: Failure) -> None:
        """Keep the failure; the next run tries the trial again."""
        self.trial(key).mkdir(parents=True, exist_ok=True)
        write_text(self.trial(key) / "failure.json", failure.model_dump_json(indent=1), force=True)

    @contextmanager
    def claim(self, key: str, trial: Trial) -> Iterator[bool]:
        """Hold the trial for the length of a with block; False where another process holds it.

        The system takes the claim back when the process ends, however it ends.
        """
        directory = self.trial(key)
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("w") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
            write_text(directory / "trial.json", trial.model_dump_json(indent=1), force=True)
            yield True


def _read(kind: type[_Document], path: Path) -> _Document | None:
    try:
        return kind.model_validate_json(_bytes(path))
    except (OSError, ValidationError):
        return None


def _bytes(path: Path) -> bytes:
    """Raises OSError for what is no document: a pipe would never end."""
    if not path.is_file() or path.stat().st_size > _LARGEST:
        raise OSError(f"{path} is no file, or a very large one")
    return path.read_bytes()
