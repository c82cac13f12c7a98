"""One HTML page that shows what became of a session."""

from services.report.facts import ReportFacts
from services.report.html import write_report

__all__ = ["ReportFacts", "write_report"]
