"""A run as one HTML file, which people can read, send and open anywhere."""

from tfopt.page.histograms import histograms, sampled
from tfopt.page.report_html import html, write

__all__ = ["histograms", "html", "sampled", "write"]
