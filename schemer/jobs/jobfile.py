"""`job.star`: a job's type and the values of its options. Source: schemes.md section 9."""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from algorithms.formats import star
from schemer.errors import SchemeError


class JobFile(Struct, frozen=True):
    """The content of a job.star: type label, options, and whether the job continues."""

    label: str
    options: dict[str, str]
    is_continue: bool = False

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "JobFile":
        """Read a job.star.

        Raises
        ------
        SchemeError
            No such file, no readable STAR, or no type label.
        """
        file = Path(path)
        try:
            tables = star.load(file)
        except FileNotFoundError:
            raise SchemeError(f"{file}: this job node has no job.star; add it") from None
        except star.StarError as error:
            raise SchemeError(str(error)) from None
        job = tables.get("job", star.Table()).columns
        if not job.get("rlnJobTypeLabel"):
            raise SchemeError(f"{file}: block data_job has no _rlnJobTypeLabel; add it")
        values = tables.get("joboptions_values", star.Table()).columns
        options = dict(
            zip(
                values.get("rlnJobOptionVariable", []),
                values.get("rlnJobOptionValue", []),
                strict=True,
            )
        )
        is_continue = job.get("rlnJobIsContinue", ["0"])[0] == "1"
        return cls(job["rlnJobTypeLabel"][0], options, is_continue)

    def dumps(self, version: int = 50001) -> str:
        """Return the text of the file, options sorted; 4.0 and later need no tomography flag."""
        return star.dumps(
            {
                "job": job_table(self.label, self.is_continue),
                "joboptions_values": option_table(self.options),
            },
            version,
        )


def job_table(label: str, is_continue: bool) -> star.Table:
    """Return the block `data_job`."""
    return star.Table.of(
        {"rlnJobTypeLabel": label, "rlnJobIsContinue": int(is_continue), "rlnJobIsTomo": 0},
        loop=False,
    )


def option_table(options: Mapping[str, str]) -> star.Table:
    """Return the block `data_joboptions_values`, sorted by option."""
    names = sorted(options)
    return star.Table.of(
        {
            "rlnJobOptionVariable": names,
            "rlnJobOptionValue": [options[name] for name in names],
        }
    )
