"""`job.star`: a job's type and the values of its options. Source: schemes.md section 9."""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from algorithms.formats import star
from schemer.errors import SchemeError
from schemer.jobs.jobtype import JobType
from schemer.jobs.types import by_number, find

_BLOCKS = ("job", "joboptions_values")


class JobFile(Struct, frozen=True):
    """The content of a job.star: type label, options, whether the job continues, tomography."""

    label: str
    options: dict[str, str]
    is_continue: bool = False
    is_tomo: bool = False

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "JobFile":
        """Read a job.star; files of 3.x may hold RELION's type number in place of the label.

        Those files also write two underscores for a blank.

        Raises
        ------
        SchemeError
            No such file, no readable STAR, or no type.
        """
        file = Path(path)
        try:
            tables = star.load(file, only=_BLOCKS)
        except FileNotFoundError:
            raise SchemeError(f"{file}: this job node has no job.star; add it") from None
        except OSError as error:
            raise SchemeError(f"{file}: cannot be read ({error}); correct that first") from None
        except star.StarError as error:
            raise SchemeError(str(error)) from None
        job = tables.get("job", star.Table()).columns
        values = tables.get("joboptions_values", star.Table()).columns
        names = values.get("rlnJobOptionVariable", [])
        texts = values.get("rlnJobOptionValue", [])
        if len(names) != len(texts):
            raise SchemeError(
                f"{file}: block data_joboptions_values needs both columns, _rlnJobOptionVariable "
                "and _rlnJobOptionValue; add the missing one"
            )
        if "rlnJobTypeLabel" not in job:
            texts = [text.replace("__", " ") for text in texts]
        return cls(
            _label(file, job),
            dict(zip(names, texts, strict=True)),
            is_continue=_flag(job, "rlnJobIsContinue"),
            is_tomo=_flag(job, "rlnJobIsTomo"),
        )

    @property
    def type(self) -> JobType:
        """Return the job's type; SchemeError if there is no such type."""
        return find(self.label, tomo=self.is_tomo)

    def dumps(self, version: int = 50001) -> str:
        """Return the text of the file, options sorted."""
        return star.dumps(
            {
                "job": job_table(self.label, self.is_continue, self.is_tomo),
                "joboptions_values": option_table(self.options),
            },
            version,
        )


def _label(file: Path, job: Mapping[str, list[str]]) -> str:
    if job.get("rlnJobTypeLabel"):
        return job["rlnJobTypeLabel"][0]
    number = (job.get("rlnJobType") or [""])[0]
    if not number:
        raise SchemeError(f"{file}: block data_job has no _rlnJobTypeLabel; add it")
    job_type = by_number(int(number)) if number.isdecimal() else None
    if job_type is None:
        raise SchemeError(
            f"{file}: block data_job: _rlnJobType {number!r} is no type of job; "
            "write _rlnJobTypeLabel with a label such as relion.motioncorr"
        )
    return job_type.label


def _flag(job: Mapping[str, list[str]], name: str) -> bool:
    return (job.get(name) or ["0"])[0] == "1"


def job_table(label: str, is_continue: bool, is_tomo: bool = False) -> star.Table:
    """Return the block `data_job`."""
    return star.Table.of(
        {
            "rlnJobTypeLabel": label,
            "rlnJobIsContinue": int(is_continue),
            "rlnJobIsTomo": int(is_tomo),
        },
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
