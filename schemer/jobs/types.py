"""The job types that prep and proc use: how each is called, what it takes and what it leaves.

Options and their defaults are in `options.tsv` (RELION 5.0.1's, read from its own default files;
`*` marks the options of every type). Source: schemes.md sections 9 and 10.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

from msgspec import Struct

from schemer.errors import SchemeError

Options = Mapping[str, str]
Nodes = tuple[tuple[str, str], ...]  # (file or option, node label of RELION 5.0)

_MOVIES = "MicrographMovieGroupMetadata.star.relion"
_MICROGRAPHS = "MicrographGroupMetadata.star.relion"
_COORDINATES = "MicrographCoordsGroup.star.relion"
_PARTICLES = "ParticleGroupMetadata.star.relion"
_IMAGES = "Image2DGroupMetadata.star.relion"
_OPTIMISER = "OptimiserData.star.relion"
_LOG = "LogFile.pdf.relion"
_MAP = "DensityMap.mrc"
_MASK = "Mask3D.mrc"


class Option(Struct, frozen=True):
    """One job option: boolean, slider (a number), radio, any, filename or inputnode."""

    kind: str
    default: str


class JobType(Struct, frozen=True):
    """One of RELION's job types.

    `inputs` lists the options that name input files with the generic label of such a node;
    `label_suffix` and `outputs_of` depend on the options.
    """

    label: str
    folder: str
    label_suffix: Callable[[Options], str]
    outputs_of: Callable[[Options], Nodes]
    inputs: Nodes = ()

    @property
    def options(self) -> dict[str, Option]:
        """Return every option of the type, by name."""
        table = _option_table()
        return table["*"] | table[self.label]

    @property
    def kinds(self) -> dict[str, str]:
        """Return option -> kind, as `schemer.resolve.fill_options` wants it."""
        return {name: option.kind for name, option in self.options.items()}

    def complete(self, given: Options) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return all options of the type, sorted, and the names in `given` that it does not have.

        Such names are dead options of older Schemes: RELION warns and ignores them.
        """
        known = self.options
        merged = {name: given.get(name, option.default) for name, option in sorted(known.items())}
        return merged, tuple(sorted(set(given) - set(known)))

    def process_label(self, options: Options, given: str = "") -> str:
        """Return the label of a process with these options.

        Parameters
        ----------
        options
            Complete and filled.
        given
            The label in the Scheme's job.star; its deeper parts are kept where the options say
            nothing (`relion.external.coldstream.ranker`).
        """
        suffix = self.label_suffix(options)
        return self.label + suffix if suffix else given or self.label

    def input_nodes(self, options: Options) -> Nodes:
        """Return (path, label) of every input file that the options name."""
        return tuple(
            (options[name], label)
            for name, label in self.inputs
            if options.get(name, "") not in ("", "None")
        )

    def output_nodes(self, options: Options) -> Nodes:
        """Return (file name in the job folder, label) of every output."""
        return self.outputs_of(options)


def find(label: str) -> JobType:
    """Return the type of a label; unknown deeper parts are left off one at a time.

    Raises
    ------
    SchemeError
        None of the types here; the message lists them.
    """
    short = label
    while short:
        if short in _TYPES:
            return _TYPES[short]
        short = short.rpartition(".")[0]
    raise SchemeError(f"{label!r} is not a known job type; known are {', '.join(sorted(_TYPES))}")


@cache
def _option_table() -> dict[str, dict[str, Option]]:
    table: dict[str, dict[str, Option]] = {}
    text = files("schemer.jobs").joinpath("options.tsv").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        label, name, kind, default = line.split("\t")
        table.setdefault(label, {})[name] = Option(kind, default)
    return table


def _yes(options: Options, name: str) -> bool:
    return options.get(name) == "Yes"


def _first(options: Options, choices: Mapping[str, str], otherwise: str = "") -> str:
    return next((text for name, text in choices.items() if _yes(options, name)), otherwise)


def _import_outputs(options: Options) -> Nodes:
    if not _yes(options, "do_raw"):
        return ()  # other imports name their node by `node_type`; prep and proc have none
    if _yes(options, "is_multiframe"):
        return (("movies.star", _MOVIES),)
    return (("micrographs.star", _MICROGRAPHS),)


def _autopick_suffix(options: Options) -> str:
    if _yes(options, "do_topaz") and _yes(options, "do_topaz_train"):
        return ".topaz.train"
    if _yes(options, "do_refs"):
        return ".ref3d" if _yes(options, "do_ref3d") else ".ref2d"
    choices = {"continue_manual": ".continuemanual", "do_log": ".log", "do_topaz": ".topaz.pick"}
    return _first(options, choices)


def _select_suffix(options: Options) -> str:
    choices = {
        "do_class_ranker": ".class2dauto",
        "do_select_values": ".onvalue",
        "do_discard": ".discard",
        "do_split": ".split",
        "do_remove_duplicates": ".removeduplicates",
        "do_filaments": ".filamentsdendrogram",
    }
    return _first(options, choices, ".interactive")


def _select_outputs(options: Options) -> Nodes:
    suffix = _select_suffix(options)
    if suffix == ".class2dauto":
        return (
            ("particles.star", _PARTICLES),
            ("class_averages.star", f"{_IMAGES}.classaverages"),
            ("rank_optimiser.star", f"{_OPTIMISER}.select"),
        )
    if suffix == ".filamentsdendrogram":
        return ("run_optimiser.star", f"{_OPTIMISER}.select"), ("logfile.pdf", f"{_LOG}.select")
    if suffix == ".split":
        return ()  # declared by RELION_OUTPUT_NODES.star
    if options.get("fn_mic"):
        return (("micrographs.star", _MICROGRAPHS),)
    return (("particles.star", _PARTICLES),)


def _class2d_outputs(options: Options) -> Nodes:
    name = "nr_iter_em" if _yes(options, "do_em") else "nr_iter_grad"
    root = f"run_it{int(float(options[name])):03d}"
    return (
        (f"{root}_data.star", f"{_PARTICLES}.class2d"),
        (f"{root}_optimiser.star", f"{_OPTIMISER}.class2d"),
    )


def _initialmodel_outputs(options: Options) -> Nodes:
    label = f"{_MAP}.relion.initialmodel"
    classes, last = int(float(options["nr_classes"])), int(float(options["nr_iter"]))
    each = [(f"run_it{last:03d}_class{k:03d}.mrc", label) for k in range(1, classes + 1)]
    return (("initial_model.mrc", label), *(each if classes > 1 else ()))


def _helical(options: Options) -> str:
    return ".helical" if _yes(options, "do_helix") else ""


def _fixed(*nodes: tuple[str, str]) -> Callable[[Options], Nodes]:
    return lambda _: nodes


def _nothing(_: Options) -> str:
    return ""


_TYPES = {
    one.label: one
    for one in (
        JobType(
            "relion.import",
            "Import",
            lambda options: ".movies" if _yes(options, "do_raw") else ".other",
            _import_outputs,
        ),
        JobType(
            "relion.motioncorr",
            "MotionCorr",
            lambda options: ".own" if _yes(options, "do_own_motioncor") else ".motioncor2",
            _fixed(
                ("corrected_micrographs.star", f"{_MICROGRAPHS}.motioncorr"),
                ("logfile.pdf", f"{_LOG}.motioncorr"),
            ),
            (("input_star_mics", _MOVIES),),
        ),
        JobType(
            "relion.ctffind",
            "CtfFind",
            lambda _: ".ctffind4",
            _fixed(
                ("micrographs_ctf.star", f"{_MICROGRAPHS}.ctf"),
                ("logfile.pdf", f"{_LOG}.ctffind"),
            ),
            (("input_star_mics", _MICROGRAPHS),),
        ),
        JobType(
            "relion.select",
            "Select",
            _select_suffix,
            _select_outputs,
            (("fn_mic", _MICROGRAPHS), ("fn_data", _PARTICLES), ("fn_model", _OPTIMISER)),
        ),
        JobType(
            "relion.autopick",
            "AutoPick",
            _autopick_suffix,
            _fixed(
                ("autopick.star", f"{_COORDINATES}.autopick"),
                ("logfile.pdf", f"{_LOG}.autopick"),
            ),
            (("fn_input_autopick", _MICROGRAPHS),),
        ),
        JobType(
            "relion.extract",
            "Extract",
            lambda options: ".reextract" if _yes(options, "do_reextract") else "",
            _fixed(("particles.star", _PARTICLES)),
            (
                ("star_mics", _MICROGRAPHS),
                ("coords_suffix", _COORDINATES),
                ("fndata_reextract", _PARTICLES),
            ),
        ),
        JobType(
            "relion.class2d",
            "Class2D",
            _helical,
            _class2d_outputs,
            (("fn_img", _PARTICLES),),
        ),
        JobType(
            "relion.initialmodel",
            "InitialModel",
            _nothing,
            _initialmodel_outputs,
            (("fn_img", _PARTICLES),),
        ),
        JobType(
            "relion.refine3d",
            "Refine3D",
            _helical,
            _fixed(
                ("run_data.star", f"{_PARTICLES}.refine3d"),
                ("run_optimiser.star", f"{_OPTIMISER}.refine3d"),
                ("run_half1_class001_unfil.mrc", f"{_MAP}.relion.halfmap.refine3d"),
                ("run_class001.mrc", f"{_MAP}.relion.refine3d"),
            ),
            (("fn_img", _PARTICLES), ("fn_ref", _MAP), ("fn_mask", _MASK)),
        ),
        JobType(
            "relion.external",
            "External",
            _nothing,
            _fixed(),
            (
                ("in_mov", _MOVIES),
                ("in_mic", _MICROGRAPHS),
                ("in_part", _PARTICLES),
                ("in_coords", _COORDINATES),
                ("in_3dref", _MAP),
                ("in_mask", _MASK),
            ),
        ),
    )
}
