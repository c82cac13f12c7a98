"""A RELION GUI's way with a project folder, for tests: it shares no code with `schemer`.

It takes RELION's lock as RELION does, reads, changes and writes the pipeline in place (in two
pieces, as a slow disk would), and lets go.
"""

import os
import random
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from algorithms.formats import star

_MOVIES = {
    "5.0": "MicrographMovieGroupMetadata.star.relion",
    "4.0": "MicrographMoviesData.star.relion",
    "3.1": "0",
}
STATUSES = ("Running", "Scheduled", "Succeeded", "Failed", "Aborted")
_NAME, _ALIAS = "rlnPipeLineProcessName", "rlnPipeLineProcessAlias"
_EDGES = {"pipeline_input_edges": "rlnPipeLineEdgeProcess",
          "pipeline_output_edges": "rlnPipeLineEdgeProcess"}  # fmt: skip


class Gui:
    """An open GUI of RELION 5.0, 4.0 or 3.1; each method is one click."""

    def __init__(self, root, generation="5.0"):
        self.root, self.generation = Path(root), generation
        self.word = "" if generation == "3.1" else "Label"
        self.path = self.root / "default_pipeline.star"
        self.lock = self.root / ".relion_lock"

    @contextmanager
    def change(self):
        """Give the blocks of the pipeline; write what became of them."""
        for _ in range(5000):
            try:
                self.lock.mkdir()
                break
            except FileExistsError:
                time.sleep(0.002)
        else:
            raise TimeoutError("RELION's lock was never free")
        held = self.lock / "lock_default_pipeline.star"
        held.write_text("lock mainGUI")
        tables = star.load(self.path)
        yield tables
        text = star.dumps(tables, 50001 if self.generation == "5.0" else 30001)
        with open(self.path, "w") as file:  # in place, in pieces
            file.write(text[: len(text) // 2])
            file.flush()
            os.fsync(file.fileno())
            file.write(text[len(text) // 2 :])
        (self.root / ".pipeline_has_changed").touch()
        held.unlink()
        self.lock.rmdir()

    def processes(self):
        """Return the names of all jobs, with or without the lock."""
        return star.load(self.path).get("pipeline_processes", star.Table()).columns.get(_NAME, [])

    def add_job(self, folder="Import"):
        """Add a scheduled job with an output; return its name."""
        with self.change() as tables:
            counter = tables["pipeline_general"].columns["rlnPipeLineJobCounter"]
            process = f"{folder}/job{int(counter[0]):03d}/"
            counter[0] = str(int(counter[0]) + 1)
            (self.root / process).mkdir(parents=True, exist_ok=True)
            old = self.generation == "3.1"
            _add(tables, "pipeline_processes", {
                _NAME: process, _ALIAS: "None",
                f"rlnPipeLineProcessType{self.word}": "0" if old else "relion.import.movies",
                f"rlnPipeLineProcessStatus{self.word}": "1" if old else "Scheduled",
            })  # fmt: skip
            node = {"rlnPipeLineNodeName": process + "movies.star",
                    f"rlnPipeLineNodeType{self.word}": _MOVIES[self.generation]}  # fmt: skip
            depth = {"rlnPipeLineNodeTypeLabelDepth": "1"} if self.generation == "5.0" else {}
            _add(tables, "pipeline_nodes", node | depth)
            _add(tables, "pipeline_output_edges", {
                "rlnPipeLineEdgeProcess": process, "rlnPipeLineEdgeToNode": process + "movies.star",
            })  # fmt: skip
        return process

    def mark(self, process, status):
        """Give a job another status."""
        with self.change() as tables:
            columns = tables["pipeline_processes"].columns
            value = status if self.word else str(STATUSES.index(status))
            rows = columns[f"rlnPipeLineProcessStatus{self.word}"]
            rows[columns[_NAME].index(process)] = value

    def rename(self, process, alias):
        """Give a job an alias."""
        with self.change() as tables:
            columns = tables["pipeline_processes"].columns
            folder = process.split("/")[0]
            columns[_ALIAS][columns[_NAME].index(process)] = f"{folder}/{alias}/"

    def delete(self, process):
        """Delete a job: its rows, its nodes, and its folder, which goes to the trash."""
        with self.change() as tables:
            keep(tables, "pipeline_processes", _NAME, lambda name: name != process)
            keep(tables, "pipeline_nodes", "rlnPipeLineNodeName",
                 lambda name: not name.startswith(process))  # fmt: skip
            for block, label in _EDGES.items():
                keep(tables, block, label, lambda name: name != process)
            keep(tables, "pipeline_input_edges", "rlnPipeLineEdgeFromNode",
                 lambda name: not name.startswith(process))  # fmt: skip
            trash = self.root / "Trash" / process
            trash.parent.mkdir(parents=True, exist_ok=True)
            (self.root / process).rename(trash)


def keep(tables, block, label, test):
    """Keep the rows of a block whose value passes a test; without rows there is no block."""
    if block not in tables:
        return
    columns = tables[block].columns
    rows = [at for at, value in enumerate(columns[label]) if test(value)]
    if not rows:
        del tables[block]
        return
    tables[block].columns = {name: [v[at] for at in rows] for name, v in columns.items()}


def _add(tables, block, row):
    if block not in tables:
        tables[block] = star.Table({label: [] for label in row})
    for label, values in tables[block].columns.items():
        values.append(row.get(label, ""))


def main(root, clicks, seed, generation):
    """Click at random on jobs in Import/, which are this GUI's own; print each one's end."""
    gui, dice, mine = Gui(root, generation), random.Random(seed), []
    for click in range(clicks):
        action = dice.choice(("add", "add", "mark", "rename", "delete")) if mine else "add"
        if action == "add":
            mine.append(gui.add_job())
        elif action == "mark":
            gui.mark(dice.choice(mine), dice.choice(STATUSES))
        elif action == "rename":
            gui.rename(dice.choice(mine), f"name{click}")
        else:
            gui.delete(mine.pop(dice.randrange(len(mine))))
        time.sleep(0.002)
    print("\n".join(mine))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
