"""Trees of EPU: on one disk, spread over roots, several sessions, renamed, split, copied."""

import random

import pytest

from mdcatch.book import Book
from mdcatch.config import MdcatchConfig
from mdcatch.layouts import Software, place, recognise
from mdcatch.roots import RootConfig, file_system, is_other_session, roots_of
from mdcatch.status import overview
from mdcatch.stimuli import Override
from services.kit import events
from services.kit.errors import Code
from services.kit.sitetables import Root, Site
from tests.epu_tree import Drive, MemoryTree, image_xml, stem

MOVIE = b"frames END"
SESSION = "Supervisor_20250130_145409_grid1"
DATA = "Images-Disc1/GridSquare_77/Data"
MOVIES = RootConfig(path="/offload", role="movies")


def config(raw: str, *roots: RootConfig, **changes: object) -> MdcatchConfig:
    return MdcatchConfig(**{"raw": raw, "roots": roots, "inotify": False, **changes})


# ---- names


@pytest.mark.parametrize(
    ("path", "session", "tail", "square"),
    [
        (f"{DATA}/x", "root", f"{DATA}/x", "77"),
        (f"a/{SESSION}/{DATA}/x", SESSION, f"{DATA}/x", "77"),
        (f"DoseFractions/{SESSION}/Images-Disc2/GridSquare_8/Data/x", SESSION, None, "8"),
        ("GridSquare_8/Data/x", "root", "GridSquare_8/Data/x", "8"),
        ("frames/x", "root", "frames/x", ""),
    ],
)
def test_the_tail_begins_at_the_disc(path: str, session: str, tail: str | None, square: str):
    found = place(path, "root")
    assert (found.session, found.square, found.stem) == (session, square, "x")
    assert tail is None or found.tail == tail


def test_software_is_told_by_names():
    assert recognise([f"{DATA}/{stem()}.xml"]) is Software.EPU
    assert recognise(["a.tif", "a.tif.mdoc"]) is Software.SERIALEM
    assert recognise(["a.tif"]) is Software.FLAT
    assert recognise(["notes.txt"]) is Software.UNKNOWN
    assert recognise(["a.tif.mdoc", f"{SESSION}/EpuSession.dm"]) is Software.EPU


def test_a_book_joins_by_session_and_tail_and_else_by_square_and_stem():
    one, other = f"{DATA}/{stem()}", f"{DATA}/{stem(number=1)}"
    book = Book("data")
    assert book.here(f"{SESSION}/{one}")[0] == f"{SESSION}/{one}"
    book.learn(f"{SESSION}/{one}")
    assert book.elsewhere(f"DoseFractions/{SESSION}/{one}", "cam")[0] == f"{SESSION}/{one}"
    assert book.elsewhere(f"DoseFractions/{SESSION}/{other}", "cam")[0] == f"{SESSION}/{other}"
    assert book.elsewhere(f"Other_name/{one}", "cam")[0] == f"{SESSION}/{one}"
    assert book.elsewhere(f"Other_name/{other}", "cam")[0] is None
    assert book.elsewhere(f"Other_name/{other}", "cam", patient=False)[0] == f"Other_name/{other}"
    level = Book(SESSION)
    assert level.elsewhere(one, "some_name")[0] == one, "the root is the session's folder"
    assert level.elsewhere(f"x/{SESSION}/{one}", "cam")[0] == one


def test_file_systems_tell_which_observer_is_used():
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/epu cifs rw 0 0\n"
    from pathlib import Path

    assert file_system(Path("/data"), mounts).observer == "inotify and polling"
    assert file_system(Path("/mnt/epu/a"), mounts).observer == "polling"
    assert file_system(Path("/mnt/epu/a"), mounts).kind == "cifs"


def test_the_sites_roots_give_the_other_half_of_a_session(tmp_path):
    meta, cam = tmp_path / "meta", tmp_path / "cam"
    raw = meta / "krios1" / SESSION
    raw.mkdir(parents=True)
    site = Site(
        roots={"m": Root(path=str(meta), role="metadata"), "c": Root(path=str(cam), role="movies")}
    )
    role, (root,) = roots_of(raw, site)
    assert (role, root.path, root.role) == ("metadata", str(cam), "movies")
    (cam / "DoseFractions" / SESSION).mkdir(parents=True)
    _, (root,) = roots_of(raw, site)
    assert root.path == str(cam / "DoseFractions" / SESSION)
    assert roots_of(tmp_path / "elsewhere", site) == ("both", ())
    assert is_other_session("Supervisor_20250101_000000_x", SESSION)
    assert not is_other_session("Supervisor_20250130_145409_grid1_renamed", SESSION)
    assert not is_other_session("Images-Disc1", SESSION)


# ---- movies on other roots


@pytest.mark.parametrize("order", ["movie first", "metadata first"])
@pytest.mark.parametrize(
    ("raw", "meta_folder", "movie_folder", "movie"),
    [
        ("/meta", f"{SESSION}/", f"DoseFractions/{SESSION}/", f"{SESSION}/{DATA}/{stem()}"),
        ("/meta", f"krios1/{SESSION}/", f"{SESSION}/", f"krios1/{SESSION}/{DATA}/{stem()}"),
        ("/meta", f"{SESSION}/", "Another_name/", f"{SESSION}/{DATA}/{stem()}"),
        (f"/meta/{SESSION}", "", f"OffloadData/{SESSION}/", f"{DATA}/{stem()}"),
        (f"/meta/{SESSION}", "", "", f"{DATA}/{stem()}"),
    ],
    ids=["above", "nested", "other name", "session", "both sessions"],
)
def test_movies_on_another_root_are_joined(
    order: str, raw: str, meta_folder: str, movie_folder: str, movie: str
):
    meta, cam = MemoryTree(), MemoryTree()
    meta.put("EpuSession.txt", b"")
    cam.put("notes.txt", b"")
    drive = Drive(config(raw, MOVIES, role="metadata"), meta, trees={"/offload": cam})
    drive.run(2.0)

    def write(part: str) -> None:
        if part == "movie":
            cam.put(f"{movie_folder}{DATA}/{stem()}_fractions.tiff", MOVIE)
        else:
            meta.put(f"{meta_folder}{DATA}/{stem()}.xml", image_xml())
            meta.put(f"{meta_folder}{DATA}/{stem()}.mrc", b"|1END")

    for part in ("movie", "metadata") if order == "movie first" else ("metadata", "movie"):
        write(part)
        drive.run(20.0)
    drive.run(10.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.movie == movie and body.session == (SESSION)
    assert (body.link, body.path) == ("Movies_2", f"{movie_folder}{DATA}/{stem()}_fractions.tiff")
    assert body.metadata_path == f"{meta_folder}{DATA}/{stem()}.xml"
    assert len(drive.of(events.MovieSeen)) == 1
    roots = {body.path: (body.role, body.link) for body in drive.of(events.RootAdded)}
    assert roots == {raw: ("metadata", "Movies"), "/offload": ("movies", "Movies_2")}
    again = drive.restarted(config(raw, MOVIES, role="metadata"), meta)
    again.run(100.0)
    assert [events.kind_of(body) for body in again.bodies] == ["session.reopened"]


def test_metadata_on_another_root_leave_the_movies_path_below_the_raw_folder():
    meta, raw = MemoryTree(), MemoryTree()
    meta.put(f"{SESSION}/{DATA}/{stem()}.xml", image_xml())
    raw.put(f"{DATA}/{stem()}_fractions.tiff", MOVIE)
    root = RootConfig(path="/meta", role="metadata", session=SESSION)
    meta.put(f"Supervisor_20200101_000000_other/{DATA}/{stem(number=5)}.xml", image_xml())
    drive = Drive(config(f"/cam/{SESSION}", root, role="movies"), raw, trees={"/meta": meta})
    drive.run(100.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.link is None and body.path == f"{DATA}/{stem()}_fractions.tiff"
    assert body.metadata_path == f"/meta/{SESSION}/{DATA}/{stem()}.xml"
    assert len(drive.state.exposures) == 1, "other sessions on the root are not looked at"


def test_a_movie_that_no_session_claims_becomes_a_visible_orphan():
    meta, cam = MemoryTree(), MemoryTree()
    meta.put(f"{SESSION}/{DATA}/{stem()}.xml", image_xml())
    cam.put(f"Unknown/{DATA}/{stem(number=9)}_fractions.tiff", MOVIE)
    cam.put(f"{SESSION}/{DATA}/{stem()}_fractions.tiff", MOVIE)
    drive = Drive(
        config("/meta", MOVIES, role="metadata", inherit=False), meta, trees={"/offload": cam}
    )
    drive.run(50.0)
    assert len(drive.state.exposures) == 1
    drive.run(100.0)
    assert drive.codes() == {stem(number=9): Code.NO_METADATA}
    (orphan,) = overview(drive.state, drive.now).orphans
    assert orphan.movie == f"Unknown/{DATA}/{stem(number=9)}" and orphan.age_s > 50.0
    # Its metadata come after all, in a session of another name.
    meta.put(f"{SESSION}/{DATA}/{stem(number=9)}.xml", image_xml())
    drive.run(10.0)
    assert drive.codes() == {} and len(drive.of(events.MovieSettled)) == 2


def test_one_root_that_is_lost_does_not_stop_the_others():
    meta, cam, more = MemoryTree(), MemoryTree(), MemoryTree()
    roots = (MOVIES, RootConfig(path="/more", role="movies"))
    for tree in (cam, more):
        tree.put("notes.txt", b"")
    meta.put(f"{SESSION}/{DATA}/{stem()}.xml", image_xml())
    meta.put(f"{SESSION}/{DATA}/{stem(number=1)}.xml", image_xml())
    cam.put(f"{SESSION}/{DATA}/{stem()}_fractions.tiff", b"part")
    drive = Drive(
        config("/meta", *roots, role="metadata"), meta, trees={"/offload": cam, "/more": more}
    )
    drive.run(2.0)
    cam.gone = True
    more.put(f"{SESSION}/{DATA}/{stem(number=1)}_fractions.tiff", MOVIE)
    drive.run(30.0)
    assert drive.state.lost == {
        "/offload": "folder for movies /offload cannot be read: No such file or directory"
    }
    assert len(drive.of(events.MovieSettled)) == 1
    cam.gone = False
    cam.put(f"{SESSION}/{DATA}/{stem()}_fractions.tiff", MOVIE)
    drive.run(10.0)
    assert drive.state.lost == {} and len(drive.of(events.MovieSettled)) == 2
    assert {b.link for b in drive.of(events.MovieSettled)} == {"Movies_2", "Movies_3"}


def test_joining_does_not_depend_on_the_order_of_arrival():
    writes = []
    for number in range(6):
        writes.append(("meta", f"krios/{SESSION}/{DATA}/{stem(number=number)}.xml", image_xml()))
        folder = SESSION if number % 2 else f"DoseFractions/{SESSION}"
        writes.append(("cam", f"{folder}/{DATA}/{stem(number=number)}_fractions.tiff", MOVIE))
    for seed in range(20):
        random.Random(seed).shuffle(writes)
        trees = {"meta": MemoryTree(), "cam": MemoryTree()}
        trees["meta"].put("x", b"")
        trees["cam"].put("x", b"")
        drive = Drive(
            config("/meta", MOVIES, role="metadata"),
            trees["meta"],
            trees={"/offload": trees["cam"]},
        )
        for tree, path, content in writes:
            trees[tree].put(path, content)
            drive.run(random.Random(seed).choice([0.5, 3.0, 10.0]))
        drive.run(30.0)
        assert sorted(b.movie for b in drive.of(events.MovieSettled)) == [
            f"krios/{SESSION}/{DATA}/{stem(number=n)}" for n in range(6)
        ]
        assert len(drive.of(events.MovieSeen)) == 6


# ---- sessions


def test_several_sessions_below_one_root_are_told_apart_and_listed_by_themselves():
    tree = MemoryTree()
    names = [f"Supervisor_2025013{day}_120000_s" for day in range(3)]
    for number, session in enumerate(names[:2]):
        tree.put(f"{session}/{DATA}/{stem(number=number)}.xml", image_xml())
        tree.put(f"{session}/{DATA}/{stem(number=number)}_fractions.tiff", MOVIE)
    drive = Drive(config("/visit"), tree)
    drive.run(5.0)
    tree.put(f"{names[2]}/EpuSession.txt", b"")  # started, nothing in it yet
    disc2 = DATA.replace("Disc1", "Disc2")
    tree.put(f"{names[0]}/{disc2}/{stem(number=7)}.xml", image_xml())
    tree.put(f"{names[0]}/{disc2}/{stem(number=7)}_fractions.tiff", MOVIE)
    tree.put(f"{names[2]}/{DATA}/{stem(number=8)}.xml", image_xml())
    tree.put(f"{names[2]}/{DATA}/{stem(number=8)}_fractions.tiff", MOVIE)
    drive.run(10.0)
    assert [body.session for body in drive.of(events.SessionFound)] == names
    settled = {body.movie.rpartition("/")[2]: body for body in drive.of(events.MovieSettled)}
    assert [settled[stem(number=n)].session for n in (0, 1, 7, 8)] == [
        names[0],
        names[1],
        names[0],
        names[2],
    ]
    groups = {n: settled[stem(number=n)].optics_group for n in (0, 1, 7, 8)}
    assert groups[0] == groups[7], "another disc is the same session"
    assert len({groups[0], groups[1], groups[8]}) == 3, "each session has groups of its own"
    found = overview(drive.state, drive.now)
    assert {(s.session, s.exposures, s.settled) for s in found.sessions} == {
        (names[0], 2, 2),
        (names[1], 1, 1),
        (names[2], 1, 1),
    }
    assert [(s.session, s.grid_square, s.seen, s.holes) for s in found.squares] == [
        (names[0], "77", 2, 1),
        (names[1], "77", 1, 1),
        (names[2], "77", 1, 1),
    ]


def test_a_session_that_is_renamed_is_not_published_again():
    tree, new = MemoryTree(), f"{SESSION}_better_name"
    for number in range(3):
        tree.put(f"{SESSION}/{DATA}/{stem(number=number)}.xml", image_xml())
    for number in range(2):
        tree.put(f"{SESSION}/{DATA}/{stem(number=number)}_fractions.tiff", MOVIE)
    drive = Drive(config("/visit"), tree)
    drive.run(5.0)
    for path in [path for path in tree.files if path.startswith(SESSION)]:
        tree.move(path, new + path.removeprefix(SESSION))
    drive.run(5.0)
    tree.put(f"{new}/{DATA}/{stem(number=2)}_fractions.tiff", MOVIE)
    drive.run(90.0)
    settled = [body.movie for body in drive.of(events.MovieSettled)]
    assert settled == [f"{SESSION}/{DATA}/{stem(number=n)}" for n in range(3)]
    assert {b.path for b in drive.of(events.MovieMoved)} == {
        f"{new}/{DATA}/{stem(number=n)}_fractions.tiff" for n in range(2)
    }
    assert all((b.link, b.below) == (None, b.path) for b in drive.of(events.MovieMoved))
    assert drive.of(events.MovieSettled)[2].path.startswith(new)
    assert drive.codes() == {}
    again = drive.restarted(config("/visit"), tree)
    again.run(90.0)
    assert [events.kind_of(body) for body in again.bodies] == ["session.reopened"]


def test_one_stem_in_two_squares_is_two_exposures_and_in_two_sessions_a_duplicate():
    tree = MemoryTree()
    for folder in (f"{SESSION}/{DATA}", f"{SESSION}/{DATA.replace('77', '78')}"):
        tree.put(f"{folder}/{stem()}.xml", image_xml())
        tree.put(f"{folder}/{stem()}_fractions.tiff", MOVIE)
    drive = Drive(config("/visit"), tree)
    drive.run(5.0)
    assert len(drive.of(events.MovieSettled)) == 2
    copy = f"Copy_of_it/{DATA}/{stem()}_fractions.tiff"
    tree.put(copy, MOVIE)
    drive.run(5.0)
    assert len(drive.of(events.MovieSettled)) == 2
    (refused,) = drive.of(events.MovieRefused)
    assert (refused.movie, refused.code) == (copy, Code.DUPLICATE)
    assert f"{SESSION}/{DATA}" in refused.detail


# ---- what a person decides


def test_a_person_chooses_between_two_movies_of_one_exposure():
    tree = MemoryTree()
    movie, other = f"{DATA}/{stem()}_fractions.tiff", f"{DATA}/{stem()}_Fractions.mrc"
    tree.put(movie, b"broken")
    tree.put(other, MOVIE)
    drive = Drive(config(f"/raw/{SESSION}", stuck_s=10.0), tree)
    drive.run(5.0)
    tree.put(f"{DATA}/{stem()}.xml", image_xml())
    drive.run(20.0)
    codes = drive.codes()
    assert Code.DUPLICATE in codes.values()
    first = next(b.path for b in drive.of(events.MovieSeen) if b.movie.endswith(stem()))
    chosen = other if first == movie else movie
    drive.source.tell(Override(movie=f"{DATA}/{stem()}", choose=other))
    drive.run(10.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.path == other, (first, chosen)
    assert len(drive.of(events.MovieOverridden)) == 1


def test_a_person_accepts_a_movie_without_metadata_and_ignores_another():
    tree = MemoryTree()
    person = {"overrides": {"pixel_size_A": 1.0, "voltage_kV": 300.0, "dose_e_A2": 40.0}}
    import msgspec

    settings = msgspec.convert(
        {"raw": f"/raw/{SESSION}", "inotify": False, "inherit": False, **person}, MdcatchConfig
    )
    tree.put(f"{DATA}/{stem(number=0)}.xml", image_xml())
    for number in (1, 2):
        tree.put(f"{DATA}/{stem(number=number)}_fractions.tiff", MOVIE)
    plain = config(f"/raw/{SESSION}", inherit=False)
    drive = Drive(plain, tree)
    drive.run(70.0)
    assert list(drive.codes().values()) == [Code.NO_MOVIE, Code.NO_METADATA, Code.NO_METADATA]
    drive.source.tell(Override(movie=f"{DATA}/{stem(number=2)}", ignore=True))
    drive.source.tell(Override(movie=f"{DATA}/{stem(number=1)}", accept=True))
    drive.run(5.0)
    assert not drive.of(events.MovieSettled), "nothing is known of it: accepting does not help"
    again = drive.restarted(settings, tree)
    again.run(5.0)
    (body,) = again.of(events.MovieSettled)
    assert body.movie.endswith(stem(number=1)) and body.metadata == "operator"
    assert body.sources["pixel_size_A"] == "operator" and body.dose_e_A2 == 40.0
    assert again.codes() == {stem(number=0): Code.NO_MOVIE, stem(number=2): Code.IGNORED}
    again.source.tell(Override(movie=f"{DATA}/{stem(number=2)}", ignore=False))
    again.run(70.0)
    assert again.of(events.MovieSettled)[1].movie == f"{DATA}/{stem(number=2)}"


def test_what_a_person_leaves_open_stays_as_it_was_decided():
    tree = MemoryTree()
    movie, other = f"{DATA}/{stem()}_fractions.tiff", f"{DATA}/{stem()}_Fractions.mrc"
    for path in (movie, other):
        tree.put(path, MOVIE)
    drive = Drive(config(f"/raw/{SESSION}"), tree)
    drive.run(5.0)
    one = f"{DATA}/{stem()}"
    drive.source.tell(Override(movie=one, choose=other))
    drive.source.tell(Override(movie=one, ignore=True))
    tree.put(f"{one}.xml", image_xml())
    drive.run(10.0)
    assert drive.codes()[stem()] == Code.IGNORED and not drive.of(events.MovieSettled)
    decided = drive.state.overrides[one]
    assert (decided.choose, decided.ignore, decided.accept) == (other, True, None)
    drive.source.tell(Override(movie=one, ignore=False))
    drive.run(10.0)
    (body,) = drive.of(events.MovieSettled)
    assert body.path == other, "the movie that was chosen before"
    drive.source.tell(Override(movie="no/such", ignore=True))
    drive.source.tell(Override(movie=one, ignore=False))
    assert drive.run(2.0) == []
