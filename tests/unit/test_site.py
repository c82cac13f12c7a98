"""The site's file: what it holds, what is wrong with it, and who wins over whom."""

import msgspec
import pytest

from services.kit import session as sessions
from services.kit import site as sites
from services.kit.errors import Misuse
from services.kit.misfits import misfits
from services.kit.paths import Layout
from services.kit.sitetables import (
    Camera,
    Cluster,
    Defaults,
    Microscope,
    Notify,
    Programs,
    Root,
    Security,
    Site,
)
from tests.unit.test_docs import ROOT

GOOD = """
[roots.meta]
path = "/mnt/meta"
role = "metadata"

[[microscopes]]
id = "3299"
name = "Krios1"
spherical_aberration_mm = 2.7
  [[microscopes.cameras]]
  model = "K3"
  epu_id = "EF-CCD"
    [microscopes.cameras.pixel_sizes_A]
    105000 = 0.835
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "coldstream.toml"
        path.write_text(text)
        return path

    return write


def complaint(path) -> sites.SiteError:
    with pytest.raises(sites.SiteError) as caught:
        sites.load(path)
    return caught.value


def test_a_good_file(write):
    site = sites.load(write(GOOD))
    assert site.roots == {"meta": Root(path="/mnt/meta", role="metadata")}
    (krios,) = site.microscopes
    assert krios.cameras[0].pixel_sizes_A == {105000: 0.835}
    assert site.defaults.picker == "log"
    assert sites.load(None) == Site()


def test_the_example_is_good_and_shows_every_table():
    site = sites.load(ROOT / "systemd" / "coldstream.toml.example")
    text = (ROOT / "systemd" / "coldstream.toml.example").read_text()
    for table in Site.__struct_fields__:
        assert f"[{table}" in text or table == "programs", table
    assert len(site.microscopes[0].cameras) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pickers = 1", "pickers = 1 is not a key of this file; no known key is like it"),
        ("[default]", "default = {} is not a key of this file; did you mean defaults?"),
        (
            '[defaults]\npickr = "log"',
            'defaults.pickr = "log" is not a key of [defaults]; did you mean picker',
        ),
        (
            '[defaults]\npicker = "blob"',
            'defaults.picker = "blob" does not fit; write one of log, topaz, cryolo',
        ),
        (
            "[defaults]\nsettle_s = -1",
            "defaults.settle_s = -1 does not fit; write a number of at least 0 and of at most",
        ),
        (
            '[roots.a]\npath = "mnt/a"',
            'roots.a.path = "mnt/a" does not fit; write an absolute path without ..',
        ),
        ('[roots.a]\npath = "/mnt/../a"', "write an absolute path without .."),
        ("[roots.a]", "roots.a.path is missing; give an absolute path without .."),
        ('[roots]\na = "/mnt"', 'roots.a = "/mnt" does not fit; write a table'),
        (
            '[[microscopes]]\nid = "1"\nspherical_aberration_mm = 2.7',
            "microscopes[1].name is missing; give a name",
        ),
        (
            GOOD.replace("2.7", '"2.7"'),
            'microscopes[Krios1].spherical_aberration_mm = "2.7" does not fit; write a number of '
            "at least 0 and of at most 20",
        ),
        (
            GOOD.replace("model", "modle"),
            'microscopes[Krios1].cameras[1].modle = "K3" is not a key of '
            "[microscopes[Krios1].cameras[1]]; did you mean model?",
        ),
        (
            GOOD.replace("105000", "x"),
            'cameras[K3].pixel_sizes_A.x = "x" does not fit; write a magnification such as 105000',
        ),
        (GOOD.replace("0.835", "835"), "pixel_sizes_A.105000 = 835 does not fit; write a number"),
        (
            GOOD.replace('epu_id = "EF-CCD"', 'gain = ["Data/*_gain.tiff"]'),
            'cameras[K3].gain[1] = "Data/*_gain.tiff" does not fit; write a pattern for file names',
        ),
        (
            GOOD.replace('epu_id = "EF-CCD"', 'mtf = {counting = "/x_{volt}.star"}'),
            "where {kV} stands for the voltage",
        ),
        (
            GOOD + '[[microscopes]]\nid = "D3299"\nname = "K2"\nspherical_aberration_mm = 2.7',
            "coldstream.toml: microscopes Krios1 and K2 share the id or name '3299'",
        ),
        ('[cluster]\nscheduler = "host:8786"', "an address such as tcp://host:8786"),
        ('[notify]\nmail = ["-x@site"]', 'notify.mail[1] = "-x@site" does not fit; write a mail'),
        ('microscopes = "none"', 'microscopes = "none" does not fit; write a list in [ ]'),
        ("[roots", "the file is no TOML: "),
        ("a = 1\na = 2", "the file is no TOML: Cannot overwrite a value"),
    ],
)
def test_a_wrong_file_names_key_value_and_remedy(write, text, expected):
    path = write(text)
    error = complaint(path)
    assert expected in str(error)
    assert str(error).startswith(f"{path}: ")
    assert isinstance(error, Misuse)


def test_everything_that_is_wrong_is_told(write):
    error = complaint(write('[defaults]\npickr = 1\nsymmetry = "Q"\n[roots.a]\nrole = "all"'))
    assert [misfit.key for misfit in error.misfits] == [
        "defaults.pickr",
        "defaults.symmetry",
        "roots.a.role",
        "roots.a.path",
    ]
    assert str(error).endswith("(and 3 more: coldstream doctor)")


def test_files_that_are_no_text_or_not_readable(tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\0")
    assert "is no TOML" in str(complaint(binary))
    binary.write_bytes(b"#" * (sites.MAX_BYTES + 1))
    assert "more than 1048576 bytes" in str(complaint(binary))
    assert "cannot be read" in str(complaint(tmp_path))


def test_misfits_and_msgspec_agree():
    assert not list(misfits({"path": "/a"}, Root))
    for table in (
        {},
        {"path": 1},
        {"path": "a"},
        {"path": "/a", "x": 1},
        {"path": "/a", "role": 2},
    ):
        assert list(misfits(table, Root)), table
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(table, Root)
    assert str(next(misfits("text", Root, "root"))) == 'root = "text" does not fit; write a table'


# Where the file is


def test_the_command_line_goes_before_the_environment_and_that_before_etc(
    tmp_path, monkeypatch, write
):
    asked, other = write(GOOD), tmp_path / "other.toml"
    other.write_text("")
    monkeypatch.setattr(sites, "PLACE", tmp_path / "absent.toml")
    assert sites.locate(None, {}) is None
    assert sites.locate(None, {sites.VARIABLE: ""}) is None
    assert sites.locate(None, {sites.VARIABLE: str(other)}) == other
    assert sites.locate(asked, {sites.VARIABLE: str(other)}) == asked
    monkeypatch.setattr(sites, "PLACE", other)
    assert sites.locate(None, {}) == other
    for config, environment, by in (
        (tmp_path / "no", {}, "--config"),
        (None, {sites.VARIABLE: "/no"}, sites.VARIABLE),
    ):
        with pytest.raises(Misuse, match=f"{by} .*no is not a file"):
            sites.locate(config, environment)


# Who is meant

MICROSCOPE = Microscope(
    id="3299",
    name="Krios1",
    aliases=("TITAN52332990",),
    spherical_aberration_mm=2.7,
    cameras=(
        Camera(model="Falcon 4", epu_id="BM-Falcon"),
        Camera(model="Falcon 4i", epu_id="EF-Falcon"),
        Camera(model="K3", epu_id="EF-CCD"),
        Camera(model="K3 Alpine"),
    ),
)


@pytest.mark.parametrize(
    ("model", "epu_id", "expected"),
    [
        ("Falcon 4i", "EF-Falcon", "Falcon 4i"),
        ("Falcon-4", "EF-Falcon", "Falcon 4"),  # the model is believed before the table of ids
        ("FALCON4I", None, "Falcon 4i"),
        ("BioQuantum K3", "EF-CCD", "K3"),
        ("Gatan K3 Alpine", None, "K3 Alpine"),
        ("Falcon 3EC", "EF-Falcon", None),  # a camera the site does not have is not another one
        (None, "BM-Falcon", "Falcon 4"),
        (None, "ef-ccd", "K3"),
        (None, None, None),
        ("", "Ceta", None),
    ],
)
def test_which_camera(model, epu_id, expected):
    found = MICROSCOPE.camera(model, epu_id)
    assert (found.model if found else None) == expected


def test_an_id_of_two_cameras_names_none():
    twins = msgspec.structs.replace(
        MICROSCOPE, cameras=(Camera(model="K2", epu_id="EF-CCD"), MICROSCOPE.cameras[2])
    )
    assert twins.camera(None, "EF-CCD") is None
    assert twins.camera("K2", "EF-CCD") is not None


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        ("3299", True),
        ("D3299", True),
        (" krios1 ", True),
        ("titan52332990", True),
        ("329", False),
        ("", False),
        (None, False),
    ],
)
def test_which_microscope(stated, known):
    site = Site(microscopes=(MICROSCOPE,))
    assert site.microscope(stated) == (MICROSCOPE if known else None)


def test_roots_gains_and_mtf(tmp_path):
    site = Site(roots={"a": Root(path="/mnt"), "b": Root(path="/mnt/deep", role="movies")})
    assert site.root_of(tmp_path) is None
    assert site.root_of(sites.Path("/mnt/deep/x")) == site.roots["b"]
    assert site.root_of(sites.Path("/mnt/deeper")) == site.roots["a"]
    camera = Camera(model="K3", gain=("*_Gain.tiff",), mtf={"counting": "/m_{kV}.star"})
    assert camera.is_gain("X_gain.TIFF")
    assert not camera.is_gain("x_gain.mrc")
    assert str(camera.mtf_file("counting", 299.97)) == "/m_300.star"
    assert camera.mtf_file("linear", 300) is None


# Precedence


def test_the_strongest_layer_that_says_something_wins():
    found = sites.layered(
        ("command line", {"workers": 2, "settle_s": None}),
        ("session", {"workers": 3, "settle_s": 5.0}),
        ("site", {"settle_s": 20.0, "scheduler": "tcp://h:1"}),
        ("built-in", {"poll_s": 0.5, "scheduler": None}),
    )
    assert found == {
        "workers": (2, "command line"),
        "settle_s": (5.0, "session"),
        "scheduler": ("tcp://h:1", "site"),
        "poll_s": (0.5, "built-in"),
    }


def test_what_a_site_sets_of_a_session(write):
    assert sites.session_fields(Site()) == {}
    text = """
    [defaults]
    particle_diameter_A = 180
    ctf_resolution_A = 5
    stuck_s = 100
    settings = {prep__motioncorr__patch_x = "7"}
    [cluster]
    workers = 4
    worker_memory = "8GB"
    """
    fields = sites.session_fields(sites.load(write(text)))
    assert fields == {
        "particle_diameter_A": 180.0,
        "stuck_s": 100.0,
        "workers": 4,
        "worker_memory": "8GB",
        "settings": {
            "prep__motioncorr__patch_x": "7",
            "proc__select_mics__select_maxval": "5",
        },
    }
    session = msgspec.convert({"name": "n", "raw": "/r", **fields}, sessions.Session)
    assert session.workers == 4


def test_a_session_keeps_what_it_was_opened_with(tmp_path, write):
    layout = Layout(tmp_path / "project")
    layout.hidden.mkdir(parents=True)
    assert sites.frozen(layout) == Site()
    path = write(GOOD)
    sites.freeze(layout, sites.load(path))
    path.write_text("")
    assert sites.frozen(layout) == sites.decode(sites.tomllib.loads(GOOD), path)
    (layout.hidden / "site.json").write_text('{"roots": 1}')
    with pytest.raises(Misuse, match=r"site\.json: .*open the session again"):
        sites.frozen(layout)


# The page


TABLES = (Root, Microscope, Camera, Defaults, Cluster, Programs, Notify, Security)


@pytest.mark.parametrize("table", (Site, *TABLES))
def test_every_key_is_on_the_page(table):
    page = (ROOT / "docs" / "reference" / "site.md").read_text()
    for field in table.__struct_fields__:
        assert f"`{field}`" in page or f"[{field}" in page, f"{table.__name__}.{field}"
