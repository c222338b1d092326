"""From the library's words to the command line's: `force=True` in a message becomes `--force`.

The one rule: NAME=VALUE, where some command has a parameter NAME, is that parameter's flag and its value as a shell
takes it. True is the bare flag, False its --no- form, and NAME= alone names the flag. An argument of a call is no flag.
"""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache

_NAMED = re.compile(
    r"""(?<!\w\()\b(?P<name>[a-z]\w*)=(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\([^)]*\)|[-\w./]*)"""
)


def to_flags(text: str) -> str:
    """The text with every parameter that it names spelled as it is typed."""
    return _NAMED.sub(_flag, text)


def _flag(match: re.Match[str]) -> str:
    name, value = match["name"], _typed(match["value"])
    if name == "weights":  # two flags choose the one parameter
        return "--pretrained" if value == "pretrained" else f"--checkpoint {value}".strip()
    flag = flags().get(name)
    if flag is None:
        return match[0]
    if value in ("True", "False"):
        return flag if value == "True" else flag.replace("--", "--no-", 1)
    return f"{flag} {value}".strip()


def _typed(value: str) -> str:
    """A Python literal, or names in brackets, as one word of a shell."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value.strip("()[]").replace(", ", ",")
    items = literal if isinstance(literal, list | tuple) else [literal]
    return shlex.quote(",".join(map(str, items)))


@cache
def flags() -> dict[str, str]:
    """The long flag of every parameter of every command, by the parameter's name."""
    from typer.main import get_command

    from poolswap.cli.app import app

    commands = getattr(get_command(app), "commands", {}).values()
    found = {}
    for parameter in (parameter for command in commands for parameter in command.params):
        long = [flag for flag in parameter.opts if flag.startswith("--")]
        if long:
            found[parameter.name] = long[0]
    return found
