"""Documents that people write by hand: a YAML or JSON file of fields, which options complete."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from poolswap.errors import InputError, in_words, nearest, no_file

_LARGEST = 64 * 2**20  # bytes of a file; a plan of a thousand sites has one
_MOST_VALUES, _DEEPEST = 1_000_000, 64


class Settings(BaseModel):
    """Fields that are read from a file and checked as a whole; `noun` names the document, `example` is a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    noun: ClassVar[str]
    example: ClassVar[str]

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """The document of a YAML or JSON file. Raises InputError for anything else."""
        return cls.make(cls.fields(path), origin=path)

    @classmethod
    def fields(cls, path: Path | str | None) -> dict[str, Any]:
        """The fields that a YAML or JSON file sets, for `make` to complete; none without a file. Raises InputError."""
        if path is None:
            return {}
        path = Path(path)
        if not path.exists():
            raise no_file(path, cls._hint())
        if not path.is_file():
            raise InputError(f"{path} is no file, so no {cls.noun}", cls._hint())
        parse = json.loads if path.suffix == ".json" else _parse_yaml
        try:
            if path.stat().st_size > _LARGEST:
                raise ValueError(f"it is larger than {_LARGEST // 2**20} MB")
            document = parse(path.read_text(encoding="utf-8"))
            _check_plain(document)
        except OSError as error:
            raise InputError(
                f"cannot read the {cls.noun} {path}: {error.strerror or error}", "check the path"
            ) from None
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise InputError(f"{path} is not a {cls.noun}: {' '.join(str(error).split())}", cls._hint()) from None
        if not isinstance(document, dict):
            raise InputError(f"{path} is not a {cls.noun}: it has no fields", cls._hint())
        return document

    @classmethod
    def make(cls, fields: dict[str, Any], origin: Path | str | None = None) -> Self:
        """The document of these fields, which come from the file `origin` if from any.

        Raises InputError that names the field that is wrong.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "document"
            hint = cls._hint(*first["loc"][:1])
            if first["type"] == "extra_forbidden":
                hint = nearest(where, cls.model_fields) or f"the fields are {', '.join(cls.model_fields)}"
            elif first["type"] == "literal_error":
                hint = nearest(str(first["input"]), re.findall(r"'(.*?)'", first["msg"])) or hint
            of = f"the {cls.noun}'s" if origin is None else f"{origin} is not a {cls.noun}:"
            raise InputError(f"{of} {where}: {in_words(first['msg'])}", hint) from None

    @classmethod
    def _hint(cls, name: int | str | None = None) -> str:
        """An example of the field of this name, its own or its default, or else of any field."""
        field = cls.model_fields.get(str(name))
        examples = field.examples or [field.default] if field is not None else []
        plain = (str, int, float, tuple, dict)
        written = next((json.dumps(value) for value in examples if value and isinstance(value, plain)), None)
        return f"write for example {name}: {written}" if written else f"write for example {cls.example}"


class _Loader(yaml.SafeLoader):
    """Stops at more values than a document may have: each takes 30 microseconds and half a kilobyte."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.values += 1
        if self.values > _MOST_VALUES:
            raise ValueError("it has too many values")
        return super().compose_node(parent, index)


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # a SafeLoader


def _check_plain(document: Any) -> None:
    """Raise ValueError for what JSON could not hold. In YAML, a few aliases can stand for billions of values."""
    seen, waiting = 0, [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES or depth > _DEEPEST:
            raise ValueError("it has too many values, or is nested too deeply")
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif not isinstance(value, str | int | float | None):
            raise ValueError(f"{value!r} is a {type(value).__name__}: write it in quotes")
        elif isinstance(value, int) and abs(value) >= 2**64:
            raise ValueError("it has a number of more than 64 bits")
