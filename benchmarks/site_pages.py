"""mkdocs' hook: the parts of the site that are made from the program and its operators while it is built.

A page says where by a comment, <!-- commands --> or <!-- cards -->.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from typer.main import get_command

from poolswap.cli.app import EXAMPLES, app
from poolswap.operators import OPERATORS, Operator
from poolswap.operators.describe import option_types, replaces, usage

COSTS = Path(__file__).resolve().parent.parent / "docs" / "operators.md"

# Where to begin, in a sentence: from the papers, and from what the tables of the site show.
SETTINGS = {
    "soft": "Begin with the default, beta = 1, as published. `beta=learn` adds one parameter a layer; `--anneal 0.5` "
    "eases a pretrained network in.",
    "max": "The check of a method: swapped in for max pooling it must change nothing.",
    "avg": "The cheapest smooth pooling, and the right second control beside max.",
    "lp": "p = 2 or 3; with `learn=true` a small learning rate. Meant for activations that are not negative.",
    "gem": "As the head of retrieval networks, p = 3, learnt. It clamps below 1e-6: put it behind a ReLU.",
    "lse": "As the head of weakly supervised networks; r of 4 to 10 lies between average and maximum.",
    "sparsemax": "Where most of a window should weigh exactly nothing. Several times slower than `soft`.",
    "entmax15": "Between `soft` and `sparsemax`; the slowest of the three.",
    "mixed": "The default, one learnt share a layer. `per_channel=true` where there is data for it.",
    "gated": "As `mixed`, but the share depends on the window's content.",
    "stochastic": "A regulariser for training from scratch, with little data; behind a ReLU.",
    "s3": "A regulariser for training from scratch; a larger `grid` distorts less.",
    "dpp": "Give it training: its parameters are drawn at random.",
    "lip": "It adds a convolution of all channels a layer: count its parameters. It begins as average pooling.",
    "em": "`soft` by its name in AdaPool.",
    "edscw": "A part of `ada`; alone for comparisons.",
    "ada": "One learnt share a layer between `edscw` and `soft`.",
    "blur": "`taps=3` for stems, 5 for stronger smoothing. It pays in shift consistency, not in top-1.",
    "aps": "With `circular=true` in a network that pads circularly, shifts are followed exactly.",
    "simpool": "For heads alone, with training: it normalises, so it starts as no other head. `gamma=2` behind a ReLU.",
    "spp": "For heads alone. The classifier is new, so it needs training.",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with what its comment asks for, and its tables as GitHub reads them."""
    for name, make in MAKERS.items():
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", make())
    return re.sub(r"^\|.*", lambda row: re.sub(r"`([^`]*)`", _code_in_a_cell, row[0]), markdown, flags=re.MULTILINE)


def _code_in_a_cell(code: re.Match[str]) -> str:
    """Code with an escaped bar as HTML: Python-Markdown would show the backslash, where GitHub does not."""
    bar = r"\|"
    return f"<code>{escape(code[1]).replace(bar, '&#124;')}</code>" if bar in code[1] else code[0]


def commands() -> str:
    """A section a command: what it does, its line, examples, a table of options for each panel of its help."""
    return "\n\n".join(_command(name, command) for name, command in get_command(app).commands.items())


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    line = " ".join(
        ["poolswap", name, *(a.metavar if a.required else f"[{a.metavar}]" for a in arguments), "[OPTIONS]"]
    )
    parts = [f"## {name}", _plain(command.help), f"```text\n{line}\n```"]
    parts += ["\n".join(["```bash", *EXAMPLES[name], "```"])] if EXAMPLES.get(name) else []
    panels: dict[str, list[Any]] = {"Options": []}
    for parameter in command.params:
        panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(parameter)
    for panel, parameters in panels.items():
        rows = [f"| {_typed(p)} | {_plain(p.help or '')}{_default(p)} |" for p in parameters]
        parts.append("\n".join([f"| {panel} | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _typed(parameter: Any) -> str:
    words = (
        [parameter.metavar] if parameter.param_type_name == "argument" else [*parameter.opts, *parameter.secondary_opts]
    )
    value = "" if parameter.param_type_name == "argument" or parameter.is_flag else f" {parameter.metavar or ''}"
    return ", ".join(f"`{word}{value}`".replace("|", "\\|").replace(" `", "`") for word in words)


def _default(parameter: Any) -> str:
    default = parameter.default
    plain = default if isinstance(default, (str, int, float, Path)) and not isinstance(default, bool) else None
    return "" if plain is None or parameter.show_default is False else f" Default: `{plain}`."


def _plain(text: str) -> str:
    text = text.replace("\\[", "[").replace("|", "\\|").strip()
    return re.sub(r"\[default: (.*)\]$", r"Default: \1.", text)


def cards() -> str:
    """A section an operator."""
    costs = _costs()
    return "\n\n".join(_card(name, operator, costs.get(name)) for name, operator in OPERATORS.items())


def _card(name: str, operator: Operator, cost: tuple[str, str] | None) -> str:
    kind: Any = operator.window or operator.head
    what = inspect.getdoc(getattr(kind, "func", kind)) or ""
    typed = f"{name}:{_example(operator)}" if operator.options else name
    heads = "" if "windows" in replaces(operator) else " --include-global"
    price = (
        f"{_times(cost[0])} max pooling's forward, {_times(cost[1])} its training pass"
        if cost
        else "Not measured: a head runs once"
    )
    parts = [
        f"## {name}",
        f"**What.** {' and '.join(replaces(operator)).capitalize()}. {what}",
        f"**How.**\n\n```bash\npoolswap convert resnet50d --to {shlex.quote(typed)}{heads}\n```",
    ]
    if operator.options:
        rows = [
            f"| `{key}` | {_cell(value['type'])} | {_cell(value['default'])} |"
            for key, value in option_types(operator).items()
        ]
        parts.append("\n".join(["| option | takes | default |", "|---|---|---|", *rows]))
    parts.append(f"**Settings.** {SETTINGS.get(name, 'The defaults, as published.')}")
    parts.append(f"**Cost.** {price} ([how it was measured](operators.md#what-it-costs)).")
    if operator.paper:
        parts.append(f"**Whose.** {operator.paper}.")
    return "\n\n".join(parts)


def _times(ratio: str) -> str:
    return "Less than 0.1 times" if float(ratio) == 0 else f"{ratio} times"


def _cell(value: Any) -> str:
    return "-" if value is None else str(value).replace("|", "\\|")


def _example(operator: Operator) -> str:
    """The first option with a value that it takes."""
    first = usage(operator).split(", ")[0]
    name, _, value = first.partition("=")
    samples = {"float": "3", "int": "2"}
    return f"{name}={samples.get(value, value.split('|')[0])}"


def _costs() -> dict[str, tuple[str, str]]:
    """{operator: (forward, training)} of the measured table on the operators' page."""
    table = COSTS.read_text(encoding="utf-8").partition("<!-- costs -->")[2].partition("<!-- /costs -->")[0]
    return {
        name: (forward, training)
        for name, forward, training in re.findall(r"\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", table)
    }


MAKERS: dict[str, Callable[[], str]] = {"commands": commands, "cards": cards}
