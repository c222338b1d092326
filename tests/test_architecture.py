"""The flow is the layout: a room knows those before it, never those behind it, and every name means one thing."""

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import poolswap

PACKAGE = Path(poolswap.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}

# The table of rooms in docs/architecture.md. A room may import those above it.
PAGE = PACKAGE.parent / "docs" / "architecture.md"
ROOMS = (*re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE), "__main__")
KNOWN = {  # the rooms that know less than their place allows
    "ops": {"errors", "geometry"},
    "functional": {"errors", "geometry", "ops"},
    "nn": {"errors", "geometry", "ops", "functional"},
    "measure": {"inputs"},
    "models": {"errors", "budget"},
}
FACE = "__init__"  # poolswap/__init__.py, which imports its names when they are used


def name_of(path):
    """poolswap/nn/soft.py -> poolswap.nn.soft, poolswap/nn/__init__.py -> poolswap.nn."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts if parts[-1] != "__init__" else parts[:-1])


MODULES = {name_of(path): tree for path, tree in TREES.items()}


def room_of(module):
    """poolswap.nn.soft -> nn."""
    return [*module.split("."), FACE][1]


def imports(module):
    """The package's modules that a module imports: at its top, in functions, for types."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relative to itself"
            for alias in node.names:
                found = f"{node.module}.{alias.name}"
                yield from (name for name in (found if found in MODULES else node.module,) if name in MODULES)


ARROWS = [(module, other) for module in MODULES for other in imports(module)]


def test_every_room_is_in_the_table():
    assert {room_of(module) for module in MODULES} - {FACE} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_those_before_it(room):
    allowed = KNOWN.get(room, set(ROOMS[: ROOMS.index(room)])) | {room}
    assert [(a, b) for a, b in ARROWS if room_of(a) == room and room_of(b) not in allowed] == []


def test_modules_form_no_cycle():
    graph = defaultdict(set)
    for module, other in ARROWS:
        if room_of(module) not in (FACE, "cli"):  # cli's errors ask its commands how a parameter is typed
            graph[module].add(other)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_command_line_is_imported_by_nobody():
    assert {room_of(a) for a, b in ARROWS if room_of(b) == "cli"} <= {"cli", "__main__"}


def test_every_class_has_a_name_of_its_own():
    homes = defaultdict(list)
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
