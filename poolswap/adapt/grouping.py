"""Which images belong together: patches of one photograph, frames of one video, pictures of one patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from poolswap.adapt.data import is_iterable
from poolswap.errors import InputError

_COLUMN = "column:"
_WAYS = "give 'parent', 'column:NAME', or a regular expression on the images' names"


def image_groups(dataset: Any, group: str | None = None) -> tuple[str, ...] | None:
    """The group of each image of the data set, in its order; None where each image stands for itself.

    `group` is "parent", the folder above that of the class (PATIENT/CLASS/IMAGE), "column:NAME", a column of an hfds/
    data set, or a regular expression on the image's path in the folder: its first bracket, or else all that matches, is
    the group. Without it, they are the `groups` that the data set brings, if any. Raises InputError where the data does
    not have what is asked for.
    """
    found = getattr(dataset, "groups", None) if group is None else _asked(dataset, group)
    if found is None:
        return None
    if len(found) != len(dataset):
        raise InputError(f"the data set has {len(found)} groups for {len(dataset)} images", "give one for each image")
    return tuple(map(str, found))


def _asked(dataset: Any, group: str) -> Sequence[Any]:
    if is_iterable(dataset):
        raise InputError(f"group={group!r} cannot be looked up in images that stream", "use a folder or hfds/NAME")
    if group.startswith(_COLUMN):
        return _column(dataset, group.removeprefix(_COLUMN))
    names = _names(dataset, group)
    if group == "parent":
        above = [PurePath(name).parent.parent for name in names]
        flat = next((name for name, folder in zip(names, above, strict=True) if not folder.name), None)
        if flat is not None:
            raise InputError(f"{flat} has no folder above that of its class", "lay them out as val/PARENT/CLASS/IMAGE")
        return [str(folder) for folder in above]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError(f"group={group!r} is not a regular expression: {error}", _WAYS) from None
    matches = [pattern.search(name) for name in names]
    return [_group_of(match, name, group) for match, name in zip(matches, names, strict=True)]


def _group_of(match: re.Match[str] | None, name: str, group: str) -> str:
    found = match and match[1 if match.re.groups else 0]
    if not found:
        raise InputError(f"group={group!r} finds nothing in the name {name}", _WAYS)
    return found


def _column(dataset: Any, name: str) -> Sequence[Any]:
    table = getattr(getattr(dataset, "reader", None), "dataset", None)
    columns = getattr(table, "column_names", None)
    if table is None or columns is None:
        raise InputError("this data has no columns to group by", "use hfds/NAME, or group='parent'")
    if name not in columns:
        raise InputError(f"the data has no column {name!r}", f"the columns are {', '.join(columns)}")
    found: Sequence[Any] = table[name]
    return found


def _names(dataset: Any, group: str) -> list[str]:
    if not hasattr(dataset, "filenames"):
        own = getattr(dataset, "groups", None) is not None
        hint = "leave out group=: this data brings its own groups" if own else "use a folder of images"
        raise InputError(f"the images have no names that group={group!r} could look at", hint)
    try:
        return [PurePath(name).as_posix() for name in dataset.filenames(absolute=False)]
    except (AttributeError, NotImplementedError, AssertionError):
        raise InputError(f"the images have no names that group={group!r} could look at", "use column:NAME") from None
