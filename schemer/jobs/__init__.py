"""RELION's job types as data: folders, labels, options with defaults, input and output nodes."""

from schemer.jobs.check import check_options
from schemer.jobs.jobfile import JobFile
from schemer.jobs.labels import Generation, node_label
from schemer.jobs.types import JobType, Option, find

__all__ = [
    "Generation",
    "JobFile",
    "JobType",
    "Option",
    "check_options",
    "find",
    "node_label",
]
