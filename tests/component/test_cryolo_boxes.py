"""crYOLO's boxes with their confidence, by its job and as coordinates of another program."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from algorithms.formats import mrc, star
from algorithms.picking.cbox import read_cbox
from schemer.project import Project
from services.kit.errors import Refused
from services.proc.inputs import coordinates, read_picks

HEAD = (
    "\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n_CoordinateX #1\n"
    "_CoordinateY #2\n_CoordinateZ #3\n_Width #4\n_Height #5\n_Depth #6\n_EstWidth #7\n"
    "_EstHeight #8\n_Confidence #9\n_NumBoxes #10\n_Angle #11\n"
)
ROWS = (
    "10 20 <NA> 100 80 <NA> 100 80 0.4 <NA> <NA>\n"
    "30 40 <NA> 100 80 <NA> 100 80 0.9 <NA> <NA>\n"
    "50 60 <NA> 100 80 <NA> 100 80 0.1 <NA> <NA>\n"
)
# Stands for crYOLO: notes its words, and writes boxes for micrographs that are not empty.
PROGRAM = """#!{python}
import json, sys
from pathlib import Path
words = sys.argv[1:]
values = dict(zip(words, words[1:]))
Path("words.json").write_text(json.dumps(words))
Path("config.json").write_text(Path(values["--conf"]).read_text())
out = Path(values["--output"]) / "CBOX"
out.mkdir(parents=True)
for path in Path(values["--input"]).glob("*.mrc"):
    rows = {rows!r} if path.stat().st_size > 1 else ""
    (out / (path.stem + ".cbox")).write_text({head!r} + rows + "\\n")
"""


def test_the_job_takes_the_confidence_over(tmp_path):
    Project(tmp_path).init()
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "cryolo_predict.py"
    program.write_text(PROGRAM.format(python=sys.executable, rows=ROWS, head=HEAD))
    program.chmod(0o755)
    (tmp_path / "m.h5").write_bytes(b"weights")
    names = ["MotionCorr/job002/Movies/x.mrc", "MotionCorr/job002/Movies/empty.mrc"]
    for name, content in zip(names, (b"data", b"1"), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    table = star.Table.of({"rlnMicrographName": names})
    star.save(tmp_path / "mics.star", {"micrographs": table})
    command = [sys.executable, "-m", "mdcatch.launch.cryolo_job", "--in_mics", "mics.star"]
    command += ["--o", "External/job007/", "--model", "m.h5", "--box_size", "120"]
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    words = json.loads((tmp_path / "words.json").read_text())
    for name, value in (("--weights", "m.h5"), ("--threshold", "0.3"), ("--distance", "60")):
        assert words[words.index(name) + 1] == value
    assert json.loads((tmp_path / "config.json").read_text())["model"]["anchors"] == [120, 120]
    picks = star.load(tmp_path / "External/job007/Movies/x_autopick.star")[""]
    assert picks.floats("rlnCoordinateX").tolist() == [80, 60]  # corner + half the width
    assert picks.floats("rlnCoordinateY").tolist() == [80, 60]
    assert picks.floats("rlnAutopickFigureOfMerit").tolist() == [0.9, 0.4]
    empty = star.load(tmp_path / "External/job007/Movies/empty_autopick.star")
    assert len(empty.get("", star.Table())) == 0
    note = json.loads((tmp_path / "External/job007/cryolo_model.json").read_text())
    assert note["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_boxes_as_coordinates_of_another_program(tmp_path):
    path = tmp_path / "m.cbox"
    path.write_text(HEAD + ROWS + "\n")
    assert len(read_cbox(path)) == 3
    x, y, fom = coordinates(read_picks(path), 0.3)
    assert x.tolist() == [80, 60]
    assert y.tolist() == [80, 60]
    assert fom.tolist() == [0.9, 0.4]
    path.write_text(HEAD + "\n")
    assert len(read_cbox(path)) == 0
    for text in ("10 20 30 40 0.3\n", "\ndata_\n\nloop_\n_rlnCoordinateX #1\n1\n\n"):
        path.write_text(text)
        with pytest.raises(star.StarError):
            read_cbox(path)
        with pytest.raises(Refused, match="holds no coordinates"):
            read_picks(path)


def test_a_stack_is_no_micrograph(tmp_path):
    import numpy as np

    from services.proc.inputs import read_micrograph

    mrc.write(tmp_path / "m.mrcs", np.zeros((3, 20, 20), np.float32) + 1, 1.0, is_stack=True)
    with pytest.raises(Refused, match="3 images, not one micrograph"):
        read_micrograph(tmp_path, "m.mrcs")
