"""The report: one self-contained HTML file that a person can look at."""

from .builder import write_report

__all__ = ["write_report"]
