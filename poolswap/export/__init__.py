"""Files that run anywhere, proven equal to the model that they were made from."""

from poolswap.export.export import ExportReport, check_export, default_path, export_model
from poolswap.export.formats import FORMATS, Format, find_format
from poolswap.export.int8 import Images, Int8

__all__ = [
    "FORMATS",
    "ExportReport",
    "Format",
    "Images",
    "Int8",
    "check_export",
    "default_path",
    "export_model",
    "find_format",
]
