"""Files that run anywhere, proven equal to the model that they were made from."""

from poolswap.export.export import ExportReport, check_export, default_path, export_model
from poolswap.export.formats import FORMATS, Format, find_format

__all__ = ["FORMATS", "ExportReport", "Format", "check_export", "default_path", "export_model", "find_format"]
