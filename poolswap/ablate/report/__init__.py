"""The report of an ablation: one HTML page, Markdown, CSV, and pictures."""

from poolswap.ablate.report.summary import Row, Summary, summarise
from poolswap.ablate.report.write import write_report

__all__ = ["Row", "Summary", "summarise", "write_report"]
