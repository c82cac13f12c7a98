"""Small parts of the native jobs."""

import pytest

from services.jobs.items import identity
from services.jobs.logfile import write_logfile
from services.jobs.planning import read_list


@pytest.mark.parametrize(
    "path",
    [
        "Movies/Images-Disc1/Data/a_fractions.tiff",
        "MotionCorr/job002/Movies/Images-Disc1/Data/a_fractions.mrc",
        "MotionCorr/job002/Movies/Images-Disc1/Data/a_fractions_noDW.mrc",
        "Micrographs/Images-Disc1/Data/a.tif",
    ],
)
def test_a_movie_keeps_its_identity(path):
    assert identity(path) == "Images-Disc1/Data/a"


def test_a_list_that_cannot_be_read_is_no_list(tmp_path):
    assert read_list(tmp_path) == {}
    (tmp_path / ".coldstream").mkdir()
    (tmp_path / ".coldstream/items.msgpack").write_bytes(b"\xc1")
    assert read_list(tmp_path) == {}


@pytest.mark.parametrize("values", [[], [1.0], [3.0, 3.0], [1.0, float("nan"), 5.0]])
def test_the_logfile_is_a_pdf_whose_table_leads_to_its_objects(tmp_path, values):
    path = tmp_path / "logfile.pdf"
    write_logfile(path, "a (b) \\ c", {"Motion in px": values, "Late": values})
    data = path.read_bytes()
    assert data.startswith(b"%PDF-1.4\n")
    assert data.endswith(b"%%EOF\n")
    start = int(data.split()[-2])
    assert data[start:].startswith(b"xref\n0 6\n")
    places = [int(line.split()[0]) for line in data[start:].splitlines()[3:8]]
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(b"%d 0 obj\n" % number)
    length = int(data[places[3] :].split(b"/Length ")[1].split()[0])
    stream = data[places[3] :].partition(b"stream\n")[2]
    assert stream[length:].startswith(b"\nendstream")
    assert b"(a \\(b\\) \\\\ c) Tj" in stream
