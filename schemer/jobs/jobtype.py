"""What a job type is: how a job of it is called, what it takes and what it leaves.

Source: schemes.md sections 9 and 10.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct, structs

from schemer.jobs.environment import with_environment
from schemer.jobs.options import Option, Options, options_of

Nodes = tuple[tuple[str, str], ...]  # (file or option, node label of RELION 5.0)


def nothing(_: Options) -> str:
    """Return the sub-label of a type that has none."""
    return ""


def leaves(*nodes: tuple[str, str]) -> Callable[[Options], Nodes]:
    """Return the outputs of a type that always leaves the same files."""
    return lambda _: nodes


def takes(*names: str) -> Callable[[Options], tuple[str, ...]]:
    """Return the inputs of a type that always reads the files in these options."""
    return lambda _: names


class JobType(Struct, frozen=True):
    """One of RELION's job types.

    `number` is RELION's own, which files of 3.x hold in place of the label. `suffix`, `inputs`
    and `outputs` depend on the options: the sub-label, the options that name input files, in the
    order in which RELION records them, and (file in the job folder, node label).
    """

    label: str
    folder: str
    number: int
    suffix: Callable[[Options], str] = nothing
    inputs: Callable[[Options], tuple[str, ...]] = takes()
    outputs: Callable[[Options], Nodes] = leaves()
    tomo: bool = False
    options: dict[str, Option] = {}

    def __post_init__(self) -> None:
        if not self.options:
            structs.force_setattr(self, "options", options_of(self.label, tomo=self.tomo))

    def on(self, environ: Mapping[str, str]) -> "JobType":
        """Return the type with the defaults of a site (its `RELION_*` variables)."""
        return structs.replace(self, options=with_environment(self.options, environ))

    @property
    def kinds(self) -> dict[str, str]:
        """Return option -> kind, as `schemer.resolve.fill_options` wants it."""
        return {name: option.kind for name, option in self.options.items()}

    def complete(self, given: Options) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return all options of the type, sorted, and the names in `given` that it does not have.

        Such names are dead options of older Schemes: RELION warns and ignores them.
        """
        merged = {name: given.get(name, option.default) for name, option in self.options.items()}
        return merged, tuple(sorted(set(given) - set(self.options)))

    def process_label(self, options: Options, given: str = "", *, is_continue: bool = False) -> str:
        """Return the label of a process with these options.

        Parameters
        ----------
        options
            Complete and filled.
        given
            The label in the Scheme's job.star; its deeper parts are kept in a type without
            sub-labels of its own (`relion.external.coldstream.ranker`).
        is_continue
            The job has run before.
        """
        if self.suffix is nothing and given.startswith(f"{self.label}."):
            return given
        return self.label + self.suffix(_as_run(options, is_continue))

    def input_nodes(self, options: Options) -> Nodes:
        """Return (path, label) of every input file that the options name."""
        return tuple(
            (options[name], self.options[name].node)
            for name in self.inputs(options)
            if options.get(name, "") not in ("", "None")
        )

    def output_nodes(self, options: Options, *, is_continue: bool = False) -> Nodes:
        """Return (file name in the job folder, label) of every output.

        The maps of a multi-body refinement, one per row of a file, and ModelAngelo's model, named
        after the job's number, do not follow from the options: they are left out.
        """
        return self.outputs(_as_run(options, is_continue))


def _as_run(options: Options, is_continue: bool) -> Options:
    """Return the options without picking by hand, which goes on from an autopick job only."""
    return options if is_continue else {**options, "continue_manual": "No"}
