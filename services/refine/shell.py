"""The Scheme `refine` in its project."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemer.jobs import JobFile
from services.kit.options import Options
from services.kit.schemes import SchemeShell, write_scheme
from services.kit.work import content_key

# How fast a job goes and where, not what it finds: other ones are no reason to begin it anew.
RESOURCES = frozenset(
    "nr_threads nr_mpi nr_pool use_gpu gpu_ids do_preread_images do_parallel_discio scratch_dir "
    "keep_scratch do_combine_thru_disc skip_gridding do_queue qsub qsubscript queuename "
    "min_dedicated".split()
)

# Of the refined map, over the resolution from which on a B-factor is fitted: with fewer shells
# beyond it the fit says nothing.
FITTED_SHARE = 0.8


class RefineShell(SchemeShell):
    """What refine asks of its Scheme's folder.

    Parameters
    ----------
    project
        Root of the RELION project.
    """

    def __init__(self, project: Path):
        super().__init__(project, "refine", self._measured)

    def options(self, state: Any, node: str) -> Options:
        """Return the options of a job node as the variables are now."""
        # Kept ones are known by the jobs' folders only, and here the particles are a variable.
        self._filled.clear()
        return super().options(state, node)

    def _measured(self, state: Any, node: str) -> Mapping[str, str]:
        """Return options that follow from the data.

        A map of a person has other grey values than the particles. A map that does not reach
        where its B-factor would be fitted is not sharpened.
        """
        label = self.label(node)
        if label == "relion.refine3d" and state.machine.bools.get("has_iniref", False):
            return {"ref_correct_greyscale": "No"}
        if label == "relion.postprocess":
            limit = FITTED_SHARE * self.options(state, node).number("autob_lowres", 10.0)
            if state.refined_A is None or state.refined_A > limit:
                return {"do_auto_bfac": "No"}
        return {}

    def label(self, node: str) -> str:
        """Return the label in a node's job.star."""
        return self._files[node].label

    def settings(self) -> str:
        """Return what tells the jobs' options that influence results: a digest for each node."""
        nodes = sorted(self._files.items())
        return " ".join(f"{node}={_key(node, file.options)[:16]}" for node, file in nodes)

    def show(self, state: Any) -> None:
        """Write scheme.star as the machine stands."""
        write_scheme(self.project, self.scheme, state.machine)


def selects_particles(project: Path) -> bool:
    """Say whether classes are selected before their particles are refined."""
    path = project / "Schemes" / "proc" / "select_parts" / "job.star"
    return path.exists() and JobFile.load(path).options.get("do_class_ranker") == "Yes"


def _key(node: str, options: Mapping[str, str]) -> str:
    told = sorted((name, text) for name, text in options.items() if name not in RESOURCES)
    return content_key(node, repr(told))
