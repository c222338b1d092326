"""What each pooling operator does to a picture: downsampled, restored, measured, and laid out to be looked at."""

from poolswap.images.compare import Comparison, Pooled, compare
from poolswap.images.page import write_page
from poolswap.images.picture import Picture, bundled_pictures, read_picture
from poolswap.images.quality import psnr, ssim
from poolswap.images.sheet import write_sheet
from poolswap.images.table import Score, average, rows_of, write_csv

__all__ = [
    "Comparison",
    "Picture",
    "Pooled",
    "Score",
    "average",
    "bundled_pictures",
    "compare",
    "psnr",
    "read_picture",
    "rows_of",
    "ssim",
    "write_csv",
    "write_page",
    "write_sheet",
]
