"""A site's program for `command:PROGRAM`: writes the files that RELION's programs would.

It behaves as the stubs of the recorded traces (../shared/data/schemes/traces/README.md): rows
only, no images. It must be right when it is killed and started again. The project may hold a
`stub.json` with `resolutions`, `parts_per_mic`, `keep`, `sleep_s`, `touch_on` (type -> number of
the call -> paths to touch) and `exit_on` (type -> number of the call -> exit code).
"""

import json
import sys
import time
from glob import glob
from pathlib import Path

MIC, LIMIT = "rlnMicrographName", "rlnCtfMaxResolution"


def write(path, block, columns):
    """Write one table, with an optics table before it, in one step."""
    rows = list(zip(*columns.values(), strict=True))
    text = "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n\n\n" + f"data_{block}\n\nloop_\n"
    text += "".join(f"_{name} #{i}\n" for i, name in enumerate(columns, 1))
    text += "".join(" ".join(map(str, row)) + "\n" for row in rows) + "\n"
    temporary = Path(f"{path}.new")
    temporary.write_text(text)
    temporary.replace(path)


def read(path, column=0):
    """Return one column of the last table of a file that `write` has written."""
    text = Path(path).read_text() if Path(path).exists() else ""
    lines = text.rpartition("loop_")[2].splitlines()
    return [line.split()[column] for line in lines if line and not line.startswith("_")]


class Stub:
    """One call of the program."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.job = json.loads((self.folder / "job.json").read_text())
        self.options, self.type = self.job["options"], self.job["type"]
        path = Path("stub.json")
        self.setup = json.loads(path.read_text()) if path.exists() else {}

    def do(self):
        name = self.type.removeprefix("relion.").replace(".", "_")
        while not hasattr(self, name):
            name = name.rpartition("_")[0]
        getattr(self, name)()

    def empty(self, *names):
        for name in names:
            (self.folder / name).touch()

    def import_movies(self):
        movies = sorted(glob(self.options["fn_in_raw"]))
        write(self.folder / "movies.star", "movies", {"rlnMicrographMovieName": movies})

    def motioncorr(self):
        output = self.folder / "corrected_micrographs.star"
        words = self.options["other_args"].split()
        limit = int(float(words[words.index("--do_at_most") + 1])) if words else 10**9
        done = read(output) if self.job["continue"] else []
        movies = read(self.options["input_star_mics"])
        new = [f"{self.folder}/{Path(m).stem}.mrc" for m in movies]
        new = [name for name in new if name not in done][:limit]
        write(output, "micrographs", {"rlnMicrographName": done + new})
        self.empty("logfile.pdf")

    def ctffind(self):
        cycle = self.setup.get("resolutions", [4.0, 5.5, 7.0, 3.2])
        mics = read(self.options["input_star_mics"])
        values = [cycle[i % len(cycle)] for i in range(len(mics))]
        write(self.folder / "micrographs_ctf.star", "micrographs", {MIC: mics, LIMIT: values})
        self.empty("logfile.pdf")

    def select_onvalue(self):
        path = self.options["fn_mic"]
        low, high = float(self.options["select_minval"]), float(self.options["select_maxval"])
        rows = zip(read(path), map(float, read(path, 1)), strict=True)
        kept = [(name, value) for name, value in rows if low <= value <= high]
        columns = {MIC: [row[0] for row in kept], LIMIT: [row[1] for row in kept]}
        write(self.folder / "micrographs.star", "micrographs", columns)

    def autopick(self):
        mics = read(self.options["fn_input_autopick"])
        write(self.folder / "autopick.star", "coordinate_files", {"rlnMicrographName": mics})
        self.empty("logfile.pdf")

    def extract(self):
        per_mic = self.setup.get("parts_per_mic", 100)
        names = [f"{i}@{m}" for m in read(self.options["star_mics"]) for i in range(per_mic)]
        write(self.folder / "particles.star", "particles", {"rlnImageName": names})

    def class2d(self):
        root = f"run_it{int(self.options['nr_iter_grad']):03d}"
        particles = read(self.options["fn_img"])
        write(self.folder / f"{root}_data.star", "particles", {"rlnImageName": particles})
        self.empty(f"{root}_optimiser.star", f"{root}_model.star")

    def select_class2dauto(self):
        newest = sorted(Path("Extract").glob("job*"))[-1]
        particles = read(newest / "particles.star")
        kept = particles[: int(len(particles) * self.setup.get("keep", 0.5))]
        write(self.folder / "particles.star", "particles", {"rlnImageName": kept})
        self.empty("class_averages.star", "rank_optimiser.star")

    def initialmodel(self):
        self.empty("initial_model.mrc")

    def refine3d(self):
        self.empty(
            "run_data.star",
            "run_optimiser.star",
            "run_half1_class001_unfil.mrc",
            "run_class001.mrc",
        )

    def external(self):
        self.empty("done.txt")

    def number(self):
        """Return the number of this call of its type, as text."""
        counter = Path(f".stub-{self.type}")
        number = str(int(counter.read_text()) + 1 if counter.exists() else 1)
        counter.write_text(number)
        return number


def main():
    stub = Stub(sys.argv[1])
    number = stub.number()
    time.sleep(stub.setup.get("sleep_s", 0))
    if (stub.folder / "RELION_JOB_ABORT_NOW").exists():
        return 2
    stub.do()
    for path in stub.setup.get("touch_on", {}).get(stub.type, {}).get(number, []):
        Path(path).touch()
    return stub.setup.get("exit_on", {}).get(stub.type, {}).get(number, 0)


def program(folder):
    """Put the program into a folder, to be named after `command:`; return its path."""
    path = Path(folder) / "stub_jobs"
    path.write_text(f"#!{sys.executable} -IS\n" + Path(__file__).read_text())
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    sys.exit(main())
