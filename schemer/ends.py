"""How a run can end, and what RELION and other programs are told of it.

RELION reports failed and aborted jobs as a success; safe mode does not. Source: schemes.md
sections 6 and 19.
"""

SUCCESS, FAILURE, ABORTED = (
    f"RELION_JOB_EXIT_{word}" for word in ("SUCCESS", "FAILURE", "ABORTED")
)
CONTROL_FILES = (SUCCESS, FAILURE, ABORTED)
# How a run ended -> exit code, control file in the Scheme's folder.
ENDS = {
    "finished": (0, SUCCESS),
    "exit": (0, SUCCESS),
    "maxtime": (3, SUCCESS),
    "aborted": (2, ABORTED),
    "job aborted": (2, ABORTED),
    "input missing": (1, FAILURE),
    "job failed": (1, FAILURE),
    "error": (1, FAILURE),
}
STRICT_ENDS = {
    "finished": (0, SUCCESS),
    "exit": (0, SUCCESS),
    "maxtime": (0, SUCCESS),
    "aborted": (2, ABORTED),
    "job aborted": (0, SUCCESS),
    "input missing": (2, ABORTED),
    "job failed": (0, SUCCESS),
    "error": (1, FAILURE),
}


def told(ended: str, *, strict: bool) -> tuple[int, str]:
    """Return (exit code, control file) for the way a run ended."""
    return (STRICT_ENDS if strict else ENDS)[ended]
