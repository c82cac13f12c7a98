"""What can go wrong with a Scheme, its machine or its project folder.

::

    SchemeError(ValueError)      a Scheme, job option or setting is wrong: tell the person
    MachineError(RuntimeError)   the machine was used against its rules: a bug of the caller
    ProjectError(RuntimeError)   the project folder cannot be read or changed safely
    `-- ProjectLocked            another program holds RELION's lock for too long
"""


class SchemeError(ValueError):
    """A Scheme, a job option or a setting is wrong; the message says where and what to change."""


class MachineError(RuntimeError):
    """A stimulus does not fit the state, or an invariant of the state is broken."""


class ProjectError(RuntimeError):
    """The project folder cannot be read or changed safely."""


class ProjectLocked(ProjectError):
    """Another program has held RELION's pipeline lock for longer than the allowed tries."""


def at(source: str, block: str, row: str, value: object, problem: str, remedy: str) -> SchemeError:
    """Return a `SchemeError` that names file, block, row and value, and says what to do.

    Parameters
    ----------
    source
        File (or Scheme) that was read.
    block, row
        STAR block, and the row by its name, as the person finds it in the file.
    value
        The offending value as written.
    problem, remedy
        What is wrong with the value, and what to write instead.
    """
    return SchemeError(f"{source}: {block}, row {row!r}: value {value!r} {problem}; {remedy}")
