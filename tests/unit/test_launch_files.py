"""The newest exposure of a folder, the files that go with it, and programs that print JSON."""

import os
import sys
import time
from pathlib import Path

import pytest

from mdcatch.launch import files, look
from mdcatch.launch.checks import Surroundings, doubts
from mdcatch.launch.files import needs_gain
from mdcatch.launch.known import learn
from mdcatch.launch.look import Query, reader, record_of
from mdcatch.launch.newest import Newest, candidates
from mdcatch.launch.survey import around_of, known_of, survey
from mdcatch.reconcile import Exposure
from services.kit.errors import Misuse
from services.kit.sitetables import Camera, Microscope, Site
from tests.epu_tree import FOLDER, stem
from tests.launching import SITE, record, request, session


def put(root: Path, *paths: str) -> None:
    """Make empty files, one after another."""
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1000 + number, 1000 + number))


def newest(raw, movies=None):
    """Return the newest of each kind."""
    found = candidates(raw, movies)
    return Newest(*(next(iter(paths), None) for paths in found))


def names(found):
    return tuple(path.name if path is not None else None for path in found)


# ---- the newest exposure


def test_epus_newest_is_told_by_its_name(tmp_path):
    old, new = stem(1, 2, 1), stem(9, 2, 2)
    data = "Images-Disc1/GridSquare_{}/Data/"
    put(tmp_path, f"{data.format(2)}{new}.xml", f"{data.format(2)}{new}_fractions.tiff")
    put(tmp_path, f"{data.format(1)}{old}.xml", f"{data.format(1)}{old}_fractions.tiff")
    os.utime(tmp_path / f"{data.format(1)}{old}.xml", (9e9, 9e9))  # touched later, taken earlier
    assert names(newest(tmp_path)) == (f"{new}.xml", f"{new}_fractions.tiff")


def test_what_is_no_exposure_is_passed_over(tmp_path):
    square = "Images-Disc1/GridSquare_2/"
    put(
        tmp_path,
        "EpuSession.dm",
        f"{square}GridSquare_20261120_101502.xml",
        f"{square}GridSquare_20261120_101502.mrc",
        f"{square}FoilHoles/FoilHole_1_20261120_101502.xml",
        f"{square}FoilHoles/FoilHole_1_20261120_101502.mrc",
        f"{square}Data/{stem()}.mrc",  # EPU's sum
        f"{square}Data/{stem()}.jpg",
        f"{square}Data/.{stem()}_fractions.tiff.Xy12z",
        f"{square}Data/{stem()}_gain.tiff",
    )
    assert newest(tmp_path) == (None, None)
    put(tmp_path, f"{square}Data/{stem()}-0001.mrc")  # a K2 of old EPU
    assert names(newest(tmp_path)) == (None, f"{stem()}-0001.mrc")


def test_movies_in_another_tree(tmp_path):
    put(tmp_path, f"meta/s/{FOLDER}/{stem()}.xml", f"movies/s/{FOLDER}/{stem()}_EER.eer")
    found = newest(tmp_path / "meta/s", tmp_path / "movies/s")
    assert names(found) == (f"{stem()}.xml", f"{stem()}_EER.eer")


def test_serialems_newest_is_told_by_the_file(tmp_path):
    put(
        tmp_path,
        "frames/img_00001_Jul30_07.56.47.tif",
        "frames/img_00001_Jul30_07.56.47.tif.mdoc",
        "frames/img_00002_Jul30_07.58.01.tif",
        "frames/img_00002_Jul30_07.58.01.tif.mdoc",
        "frames/CountRef_img_00001.dm4",
        "grid.nav",
    )
    name = "img_00002_Jul30_07.58.01.tif"
    assert names(newest(tmp_path)) == (f"{name}.mdoc", name)


def test_links_are_not_followed_and_a_folder_that_is_closed_is_told(tmp_path, monkeypatch):
    put(tmp_path / "outside", f"{FOLDER}/{stem()}.xml")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / f"{stem()}.xml").symlink_to(tmp_path / "outside" / FOLDER / f"{stem()}.xml")
    assert newest(inside) == (None, None)

    def closed(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(Misuse, match="Permission denied"):
        newest(inside)


def test_a_large_session_is_looked_through_in_time(tmp_path):
    for square in range(40):
        data = tmp_path / f"Images-Disc1/GridSquare_{square}/Data"
        data.mkdir(parents=True)
        for hole in range(50):
            (data / f"{stem(hole, square, square)}.xml").touch()
    begin = time.monotonic()
    assert str(names(newest(tmp_path))[0]).endswith("_Data_39_41_20261120_100039.xml")
    assert time.monotonic() - begin < 5.0


# ---- gain, defects, MTF


def find(metadata, movie, camera=None, **fields):
    asked = request(**fields)
    return files.find(asked, Exposure(voltage_kV=300.0), metadata, movie, camera)


def test_gains_beside_the_movies(tmp_path):
    put(tmp_path, f"{FOLDER}/{stem()}_fractions.tiff", f"{FOLDER}/{stem()}_gain.tiff")
    movie = tmp_path / FOLDER / f"{stem()}_fractions.tiff"
    found = find(record(), movie, raw=str(tmp_path))
    assert found.gain == tmp_path / FOLDER / f"{stem()}_gain.tiff" and found.warnings == ()
    (found.gain).unlink()
    put(tmp_path, "gain.mrc")
    assert find(record(), movie, raw=str(tmp_path)).gain == tmp_path / "gain.mrc"
    (tmp_path / "gain.mrc").unlink()
    lost = find(record(), movie, raw=str(tmp_path))
    assert lost.gain is None and "no gain reference was found" in lost.warnings[0]


def test_the_gain_of_eer_is_in_the_sites_folder(tmp_path):
    put(tmp_path, f"raw/{stem()}_EER.eer", "gains/20261001_EER_GainReference.gain", "secret")
    camera = Camera(model="Falcon 4i", gain_folder=str(tmp_path / "gains"), gain_rotation=2)
    movie = tmp_path / "raw" / f"{stem()}_EER.eer"
    stated = record(gain_reference=r"C:\cal\20261001_EER_GainReference.gain")
    found = find(stated, movie, camera, raw=str(tmp_path / "raw"))
    assert found.gain == tmp_path / "gains/20261001_EER_GainReference.gain"
    assert (found.gain_rotation, found.gain_flip) == (2, 0)
    assert (
        find(stated, movie, camera, raw=str(tmp_path / "raw"), gain_rotation=0).gain_rotation == 0
    )
    for name in ("../secret", r"..\secret", "/etc/passwd", "..", "../.."):
        found = find(record(gain_reference=name), movie, camera, raw=str(tmp_path / "raw"))
        assert found.gain is None and found.warnings


def test_defects_are_beside_the_movie_only(tmp_path):
    put(tmp_path, "raw/a.tif", "raw/defects_a.txt", "secret.txt")
    movie = tmp_path / "raw" / "a.tif"
    found = find(record("mdoc", "frame_set", defects_file="defects_a.txt"), movie)
    assert found.defects == tmp_path / "raw" / "defects_a.txt"
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), ".."):
        assert find(record("mdoc", "frame_set", defects_file=name), movie).defects is None


def test_the_mtf_is_the_sites(tmp_path):
    (tmp_path / "k3_300.star").touch()
    camera = Camera(model="K3", mtf={"counting": f"{tmp_path}/k3_{{kV}}.star"})
    assert find(record(counting=True), None, camera).mtf == tmp_path / "k3_300.star"
    assert find(record(counting=False), None, camera).mtf is None
    (tmp_path / "k3_300.star").unlink()
    lost = find(record(counting=True), None, camera)
    assert lost.mtf is None and "is not there" in lost.warnings[0]


def test_what_a_person_gives_goes_first(tmp_path):
    put(tmp_path, "raw/a_fractions.tiff", "raw/a_gain.tiff", "mine.mrc", "d.txt", "m.star")
    given = {name: str(tmp_path / name) for name in ("mine.mrc", "d.txt", "m.star")}
    found = find(
        record(),
        tmp_path / "raw/a_fractions.tiff",
        gain=given["mine.mrc"],
        defects=given["d.txt"],
        mtf=given["m.star"],
    )
    assert names((found.gain, found.defects, found.mtf)) == ("mine.mrc", "d.txt", "m.star")
    gone = find(record(), tmp_path / "raw/a_fractions.tiff", gain="/no/such")
    assert gone.gain is None and gone.warnings == ()  # that it is not there is told elsewhere


@pytest.mark.parametrize(
    ("movie", "fields", "needed"),
    [
        ("a.tiff", {}, True),
        ("a.eer", {"detector": "EF-Falcon"}, True),
        ("a.mrc", {"detector": "BM-Falcon"}, False),
        ("a.mrc", {"detector": "EF-CCD"}, True),
        ("a.tif", {"gain_corrected": True}, False),
    ],
)
def test_which_movies_need_a_gain(movie, fields, needed):
    assert needs_gain(record(**fields), Path(movie)) is needed
    assert needs_gain(record(**fields), None) is False


# ---- what is known


def test_a_session_is_learnt(tmp_path):
    raw = session(tmp_path / "s")
    asked = request(raw=str(raw), particle_diameter_A=20.0)
    found = learn(asked, SITE)
    assert found.detector == "K3" and not found.is_eer and found.warnings == ()
    assert found.exposure.n_frames == 4 and found.exposure.dose_per_frame_e_A2 == 10.0
    assert found.pattern(raw) == ("Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*_fractions.tiff")
    seen = survey(asked, SITE)
    again = known_of(seen, asked, SITE)
    assert again.exposure == found.exposure and again.files == found.files
    assert around_of(seen).project == "/projects is not a folder: make it first, or choose " + (
        "another place"
    )


def test_the_last_exposure_may_still_be_written(tmp_path):
    """The newest movie is half there, the newest XML is half there: the ones before are taken."""
    raw = session(tmp_path / "s")
    data = raw / FOLDER
    whole = data / f"{stem()}_fractions.tiff"
    later, last = stem(1002, 2001, 5), stem(1003, 2001, 9)
    (data / f"{later}.xml").write_bytes((data / f"{stem()}.xml").read_bytes())
    (data / f"{later}_fractions.tiff").write_bytes(whole.read_bytes()[:50])
    (data / f"{last}.xml").write_bytes(b"<MicroscopeImage")
    found = learn(request(raw=str(raw)), SITE)
    assert names(found.newest) == (f"{stem()}.xml", whole.name)
    assert found.exposure.n_frames == 4 and found.warnings == ()
    whole.unlink()
    found = learn(request(raw=str(raw)), SITE)
    assert found.header is None and names(found.newest)[0] == f"{later}.xml"
    assert found.warnings[0].endswith("_fractions.tiff is not complete yet")
    asked = request(raw=str(raw), pipeline="relion", particle_diameter_A=20.0)
    wrong = [one.text for one in doubts(asked, found, Surroundings()) if one.level == "error"]
    assert wrong == []  # the XML says how many frames there are
    gone = survey(request(raw=str(raw / "gone")), SITE).problem
    assert gone.endswith("give the session's folder")


def test_the_sites_microscope_and_camera_are_found(tmp_path):
    raw = session(tmp_path / "s")
    camera = Camera(model="K3", epu_id="EF-CCD", pixel_sizes_A={130000: 0.9})
    scope = Microscope(id="3299", name="K", spherical_aberration_mm=1.4, cameras=(camera,))
    found = learn(request(raw=str(raw)), Site(microscopes=(scope,)))
    assert found.microscope is scope and found.camera is camera
    assert found.exposure.spherical_aberration_mm == 1.4
    assert (found.exposure.pixel_size_A, found.exposure.sources["pixel_size_A"]) == (0.9, "site")


def test_the_reader_says_why_a_file_is_refused(tmp_path):
    (tmp_path / "x.xml").write_text("<!DOCTYPE a><a/>")
    with reader(tmp_path) as read, pytest.raises(Misuse, match="XML_DTD"):
        read(tmp_path / "x.xml")


# ---- programs that print JSON


def asks(code, limit_s=20.0):
    return Query([sys.executable, "-c", code], limit_s)


def test_a_query_brings_a_document():
    assert asks("print('{\"a\": [1, 2]}')").result() == {"a": [1, 2]}
    query = asks("import time; print('[1]', flush=True); time.sleep(0.3)")
    assert query.poll() is None
    assert query.result() == [1]
    assert len(asks("print('[' + '1,' * 300000 + '1]')").result()) == 300001


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('no folder is given')", "no folder is given"),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('nonsense')", "printed no JSON"),
        ("pass", "printed no JSON"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit code -9"),
    ],
)
def test_a_query_that_fails_says_why(code, words):
    with pytest.raises(Misuse, match=words):
        asks(code).result()


def test_a_program_that_is_not_there():
    with pytest.raises(Misuse, match="cannot be started"):
        Query(["/no/such/program"])


def test_a_query_that_hangs_or_floods_is_ended(monkeypatch):
    begin = time.monotonic()
    with pytest.raises(Misuse, match="no answer within"):
        asks("import time; time.sleep(60)", 0.3).result()
    monkeypatch.setattr(look, "MAX_BYTES", 100_000)
    with pytest.raises(Misuse, match="printed more than"):
        asks("while True: print('x' * 1000)").result()
    assert time.monotonic() - begin < 10.0


def test_a_query_takes_its_children_with_it(tmp_path):
    mark = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    query = asks(code)
    while not mark.exists() or not mark.read_text():
        query.poll(0.05)
    query.close()
    deadline = time.monotonic() + 5.0
    while Path(f"/proc/{mark.read_text()}/cmdline").exists():
        text = Path(f"/proc/{mark.read_text()}/status").read_text()
        if "State:\tZ" in text:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_record_comes_back_from_its_document():
    found = record(voltage_kV=300.0, movie_size_px=(64, 48), counting=True)
    again = record_of(found.as_json())
    assert again.fields == found.fields and again.as_json() == found.as_json()
