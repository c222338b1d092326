"""Documents that people write by hand: a YAML or JSON file of fields, which options complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from poolswap.errors import InputError


class Settings(BaseModel):
    """Fields that are read from a file and checked as a whole; `noun` names the document, `example` is a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    noun: ClassVar[str]
    example: ClassVar[str]

    @classmethod
    def read(cls, path: Path | str) -> dict[str, Any]:
        """The fields that a YAML or JSON file sets, for `make` to complete. Raises InputError for anything else."""
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"cannot read the {cls.noun} {path}: {' '.join(str(error).split())}") from None
        if not isinstance(document, dict):
            raise InputError(f"{path} is not a {cls.noun}: it has no fields", f"write for example {cls.example}")
        return document

    @classmethod
    def make(cls, fields: dict[str, Any]) -> Self:
        """The document of these fields. Raises InputError that names the field that is wrong."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "document"
            hint = f"the fields are {', '.join(cls.model_fields)}" if first["type"] == "extra_forbidden" else None
            raise InputError(f"the {cls.noun}'s {where}: {first['msg']}", hint) from None
