"""What a report says in words: of a variant, of a whole run, of what its intervals mean."""

from __future__ import annotations

from poolswap.ablate.compare import MEASURES, Compared
from poolswap.ablate.report.summary import Row, Summary
from poolswap.ablate.stats import Verdict, unseen

ADAPTED = {
    "none": "as they are",
    "recalibrate": "recalibrated",
    "finetune": "fine-tuned",
    "scratch": "trained from scratch",
}
_DECIDED = (Verdict.BETTER, Verdict.WORSE)


def headlines(summary: Summary) -> list[tuple[Verdict | None, str, str]]:
    """(verdict, that in a few words, the sentence) for every operator and adaptation, from the joint intervals.

    Of what replacing the most layers did, or of the layer that did most alone. Differences that were seen come first.
    """
    lines = []
    rows = [row for row in summary.rows if not row.is_control]
    for to, adapt in dict.fromkeys((row.to, row.adapt) for row in rows):
        mine = [row for row in rows if (row.to, row.adapt) == (to, adapt)]
        row = max(mine, key=lambda row: (not row.incomplete, row.layers, abs(getattr(row.top1_compared, "delta", 0))))
        found = row.top1_compared
        short = found.joint_verdict.say(summary.family.margin) if found else "no result"
        if row.provisional and found and found.joint_verdict is not Verdict.OPEN:
            short += f", on {row.paired} seeds only"
        lines.append((found.joint_verdict if found else None, short, sentence(row, summary)))
    return sorted(lines, key=lambda line: (line[0] is None, line[0] not in _DECIDED))


def sentence(row: Row, summary: Summary) -> str:
    """What one variant did, and how sure that is."""
    available = len(summary.layers)
    count = "all" if row.layers == available else f"{row.layers} of"
    what = f"{count} {available} layers to {row.to}, {ADAPTED[row.adapt]}"
    if row.order == "single":
        what = f"{row.paths[0]} alone, which changes most, to {row.to}, {ADAPTED[row.adapt]}"
    found = row.top1_compared
    if found is None:
        if row.failed:
            return f"{what}: failed."
        if row.incomplete:
            return f"{what}: {row.seeds} of {row.seeds + row.missing} seeds, and a verdict takes all."
        why = "the control is missing; poolswap report PART1 PART2 merges shards" if row.seeds else "no result yet"
        return f"{what}: {why}."
    others = summary.family.rows - 1
    rest = f" beside {others} other row{'s' * (others > 1)}" if others > 0 else ""
    text = (
        f"{what}: top-1 {found.delta:+.2f} points against the control, from {found.joint_low:+.2f} to "
        f"{found.joint_high:+.2f}{rest}."
    )
    if found.joint_verdict is Verdict.OPEN:
        text += f" {_points(found.joint_detectable).capitalize()} would have been seen 80% of the time."
    other = [f"{MEASURES[name].title} is {c.joint_verdict}" for name, c in row.compared.items() if _decided(name, c)]
    return text + (f" Its {', its '.join(other)}." if other else "")


def _decided(name: str, compared: Compared) -> bool:
    return name != "top1" and compared.joint_verdict in _DECIDED


def difference(row: Row, margin: float, name: str = "top1") -> str:
    """A measure's difference to the control, its interval and what that shows."""
    found = row.compared.get(name)
    if found is None:
        return ""
    return f"{interval(row, name)} {said(row, margin, name)}"


def interval(row: Row, name: str = "top1") -> str:
    """A measure's difference to the control and its interval."""
    found = row.compared.get(name)
    if found is None:
        return ""
    places = 3 if name in ("loss", "logit_margin") else 2
    return f"{found.delta:+.{places}f} [{found.low:+.{places}f}, {found.high:+.{places}f}]"


def said(row: Row, margin: float, name: str = "top1") -> str:
    """A measure's verdict; few seeds are named."""
    found = row.compared.get(name)
    if found is None:
        return ""
    few = row.provisional and found.verdict is not Verdict.OPEN
    return found.verdict.say(margin) + (f" ({row.paired} seeds)" if few else "")


def spread(row: Row) -> str:
    """Mean top-1."""
    return "no result" if row.top1 is None else f"{row.top1:.2f} %"


def time_of(row: Row, name: str) -> str:
    """Time to the control's with its range, and whether that is more than the control's own noise."""
    cost = row.costs.get(name)
    if cost is None:
        return ""
    noise = "" if abs(cost.ratio - 1) > cost.noise else ", within noise"
    return f"{cost.ratio:.2f}x [{cost.low:.2f}, {cost.high:.2f}]{noise}"


def memory_of(row: Row) -> float | None:
    """Memory of a training pass to the control's."""
    cost = row.costs.get("training")
    return cost.memory_ratio if cost else None


def caveat(summary: Summary) -> str:
    """What the intervals mean, and what they cannot."""
    level = f"{100 * summary.family.level:.4g}%"
    of = f"{summary.blocks} groups of the {summary.images} images" if summary.blocks else "images of the test set"
    text = (
        f"Intervals are {level} each, over the {of} and the seeds. What is said in words holds for "
        f"{summary.family.together}. An interval with zero inside does not show that there is no difference."
    )
    trained = [row.paired for row in summary.rows if row.paired and row.adapt != "none"]
    if trained:
        text += (
            f" Trainings that collapse now and then may not be among {min(trained)} seeds: with these alone, up to "
            f"{100 * unseen(min(trained)):.0f}% of trainings could."
        )
    return text


def _points(difference: float) -> str:
    """A difference of top-1, as far as there can be one."""
    return f"{difference:.2f} points" if difference < 100 else "no difference"


def power(summary: Summary) -> list[str]:
    """By adaptation, the smallest difference that its rows could have seen."""
    lines = []
    for adapt in dict.fromkeys(row.adapt for row in summary.rows):
        found = [row.top1_compared.detectable for row in summary.rows if row.adapt == adapt and row.top1_compared]
        if found:
            middle = sorted(found)[len(found) // 2]
            lines.append(f"{ADAPTED[adapt]}, a row alone shows {_points(middle)} 80% of the time")
    return lines
