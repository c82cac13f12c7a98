"""Whether the values in a job.star fit the options of its type. Source: schemes.md section 9."""

from difflib import get_close_matches

from schemer.errors import SchemeError
from schemer.jobs.jobtype import JobType
from schemer.jobs.options import Option, Options

# Options of RELION 4.0 and before that 5.0.1 has no more; the shipped Schemes still carry them.
_DEAD = frozenset(
    "do_EPA do_ignore_ctffind_params fn_gctf_exe fn_topaz_exec gpu_ids "
    "other_gctf_args python_exe sampling skip_gridding use_ctffind4 use_gctf do_zero_mask "
    "offset_range offset_step".split()
)


def check_options(options: Options, job_type: JobType, source: str = "job.star") -> tuple[str, ...]:
    """Return notes: options that the type does not have (they are ignored), numbers left empty.

    Values with a `$$variable` are checked when the variable has been put in. An empty number is
    only noted: people leave those empty that their job does not use, as MDCatch does.

    Parameters
    ----------
    options
        As in the file.
    job_type
        The type of the job, in the form (tomography or not) that the file names.
    source
        The file, for messages.

    Raises
    ------
    SchemeError
        A value that the option's kind does not allow; names file, option, value and remedy.
    """
    notes = []
    for name, value in sorted(options.items()):
        option = job_type.options.get(name)
        if option is None:
            notes.append(f"{source}: option {name!r} {_unknown(name, job_type)}; it is ignored")
        elif option.kind == "slider" and not value:
            notes.append(f"{source}: option {name!r} is empty; give a number if the job uses it")
        elif "$$" not in value:
            remedy = _remedy(option, value)
            if remedy:
                raise SchemeError(
                    f"{source}: option {name!r} is a {option.kind}: value {value!r} does not fit; "
                    f"write {remedy}"
                )
    return tuple(notes)


def _unknown(name: str, job_type: JobType) -> str:
    if name in _DEAD:
        return f"belongs to older versions of {job_type.label}"
    near = get_close_matches(name, job_type.options, n=1, cutoff=0.8)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"is not one of {job_type.label}{hint}"


def _remedy(option: Option, value: str) -> str:
    """Return what to write instead of a value, empty if it fits."""
    if option.kind == "boolean":
        return "" if value in ("Yes", "No") else "Yes or No"
    if option.kind == "radio":
        return "" if value in option.choices else f"one of {', '.join(option.choices)}"
    if option.kind == "slider":
        try:
            float(value)
        except ValueError:
            return f"a number such as {option.default}"
    return ""
