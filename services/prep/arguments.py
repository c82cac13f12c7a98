"""RELION's additional arguments of motion correction, as a job's option `other_args` holds them.

Source: preprocessing.md section 2.1, RELION's own names.
"""

from services.kit.errors import Misuse
from services.kit.options import Options

AT_MOST = "--do_at_most"
EER_UPSAMPLING = "--eer_upsampling"
# With a value.
VALUES = (
    AT_MOST,
    EER_UPSAMPLING,
    "--max_iter",
    "--ps_size",
    "--dose_motionstats_cutoff",
)
# Without one. Binning is done in the sum, which is the same as early and takes less time.
SWITCHES = ("--skip_defect", "--even_odd_split", "--early_binning", "--no_early_binning")


def arguments(options: Options) -> dict[str, str]:
    """Return the arguments by name; a switch has the value Yes.

    Raises
    ------
    Misuse
        There are others: they would change the result in RELION, and would be lost here.
    """
    words = options.text("other_args").split()
    found: dict[str, str] = {}
    while words:
        name = words.pop(0)
        if name in SWITCHES:
            found[name] = "Yes"
        elif name in VALUES and words:
            found[name] = words.pop(0)
        else:
            takes = ", ".join([*(f"{value} N" for value in VALUES), *SWITCHES])
            raise Misuse(
                f"option other_args of {options.job} holds {name!r}; the native executor takes: "
                f"{takes}"
            )
    return found


def with_arguments(options: Options) -> Options:
    """Return options in which every argument is an option of its own, without the dashes."""
    typed = {name.lstrip("-"): value for name, value in arguments(options).items()}
    return Options(options.job, {**options.values, **typed})
