"""The parser child: the same records, the right code for every hostile file, no way around."""

import os
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mdcatch.parsers import Record, parse
from mdcatch.parsers.beneath import open_beneath
from mdcatch.parsers.child import LIMIT_S, MEMORY_MB, ParserChild
from services.kit.errors import Code, Refused, Transient
from tests.epu_tree import image_xml
from tests.header_files import dm_file, eer_file, tiff_file
from tests.metadata import ROOT, differences, samples

SESSION = b"<EpuSessionXml><Name>s</Name></EpuSessionXml>"


def large(folder: Path) -> Path:
    """Write the largest square that is let through: it takes half a second and some memory."""
    entry = "<p><key>%d</key><value><Selected>true</Selected></value></p>"
    listed = "".join(entry % n for n in range(74_000))
    inside = f"<m_serializationArray>{listed}</m_serializationArray>"
    path = folder / "GridSquare_1.dm"
    path.write_text(
        "<GridSquareXml><TargetLocations><TargetLocationsEfficient>"
        f"{inside}</TargetLocationsEfficient></TargetLocations></GridSquareXml>"
    )
    return path


def session(folder: Path, name: str = "EpuSession.dm", content: bytes = SESSION) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def code_of(child: ParserChild, path: str | Path) -> Code:
    with pytest.raises(Refused) as caught:
        child.parse(path)
    assert caught.value.detail
    return caught.value.code


def pid_of(child: ParserChild) -> int:
    assert child._child is not None
    return child._child.process.pid


def peak_MB(pid: int) -> float:
    """Return the most memory a process ever had, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# ---- it gives what the parser gives


def test_all_samples_give_the_reference_values():
    wanted = samples()
    if not wanted:
        pytest.skip("reference data not here")
    with ParserChild([ROOT]) as child:
        results = child.parse_many([(sample.path, "") for sample in wanted])
        for sample, result in zip(wanted, results, strict=True):
            assert isinstance(result, Record), (sample.path.name, result)
            assert not differences(result, sample.expected), sample.path.name
        for sample, result in list(zip(wanted, results, strict=True))[::7]:
            here = parse(sample.content, str(sample.path))
            assert result.as_json().keys() == here.as_json().keys()
            assert result.fields == here.fields
        assert peak_MB(pid_of(child)) < 128


def test_the_name_is_what_the_caller_says_else_the_path(tmp_path: Path):
    path = session(tmp_path, "a.dm", b"<GridSquareXml><Id>7</Id></GridSquareXml>")
    with ParserChild([tmp_path]) as child:
        assert child.parse(path, "GridSquare_8.dm").flags == ["id_conflict"]
        assert child.parse(path, "GridSquare_7.dm").flags == []
        assert child.parse("a.dm").get("grid_square_id") == "7"


def test_many_in_one_go_keep_their_order_and_their_refusals(tmp_path: Path):
    for number in range(150):
        session(tmp_path, f"{number}.dm", SESSION.replace(b">s<", b">%d<" % number))
    session(tmp_path, "17.dm", b"")
    with ParserChild([tmp_path]) as child:
        files = [(tmp_path / f"{number}.dm", "") for number in range(150)]
        results = child.parse_many([*files, ("/etc/hostname", ""), *files[:3]])
        assert child.parse_many([]) == []
    names = [one.get("session_name") if isinstance(one, Record) else one.code for one in results]
    wanted = [str(number) for number in range(150)]
    wanted[17] = Code.EMPTY_FILE
    assert names == [*wanted, Code.BAD_NAME, "0", "1", "2"]


# ---- nothing outside the roots, no link, no device


def test_only_regular_files_below_the_roots_are_opened(tmp_path: Path):
    root, other = tmp_path / "raw", tmp_path / "other"
    session(root, "in/EpuSession.dm")
    session(other, "EpuSession.dm")
    (root / "link.dm").symlink_to(other / "EpuSession.dm")
    (root / "inner.dm").symlink_to("in/EpuSession.dm")
    (root / "folder").symlink_to(other)
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe.dm")
    bad = ["link.dm", "inner.dm", "folder/EpuSession.dm", "up/other/EpuSession.dm", "pipe.dm"]
    bad += ["in", "in/", "", ".", "../other/EpuSession.dm", "in/../../other/EpuSession.dm"]
    bad += ["in/../in/EpuSession.dm", "in/EpuSession.dm/", "EpuSession.dm\0", "/dev/null"]
    bad += [str(other / "EpuSession.dm"), "/proc/self/environ", "//etc/hostname"]
    bad += [f"{root}/../other/EpuSession.dm", f"{root}_/x"]
    with ParserChild([root]) as child:
        for path in bad:
            assert code_of(child, path) in (Code.BAD_NAME, Code.READ_ERROR), path
        for path in ("in/EpuSession.dm", "in//EpuSession.dm", "./in/EpuSession.dm"):
            assert child.parse(path).get("session_name") == "s"
        assert code_of(child, "absent.dm") == Code.READ_ERROR
        for path in (os.fsdecode(b"in/\xff.dm"), "in/a\nb.dm", "in/\x1b[2J.dm"):
            assert code_of(child, path) == Code.BAD_NAME
    with ParserChild([root / "in", root, other]) as child:
        assert child.parse(root / "in/EpuSession.dm").kind == "epu_session"
        assert child.parse(other / "EpuSession.dm").kind == "epu_session"
        assert code_of(child, "EpuSession.dm") == Code.BAD_NAME  # below which root?


def test_a_component_is_met_as_a_link_even_when_it_was_a_folder(tmp_path: Path):
    path = session(tmp_path, "a/b/EpuSession.dm")
    os.close(open_beneath(str(tmp_path), "a/b/EpuSession.dm"))
    (tmp_path / "a").rename(tmp_path / "moved")
    (tmp_path / "a").symlink_to("moved")
    with pytest.raises(Refused, match="link or no folder"):
        open_beneath(str(tmp_path), "a/b/EpuSession.dm")
    assert path.exists()  # the plain way would have followed it


def test_unreadable_files_are_refused_not_raised(tmp_path: Path):
    path = session(tmp_path)
    path.chmod(0)
    with ParserChild([tmp_path]) as child:
        if os.geteuid() != 0:
            assert code_of(child, path) == Code.READ_ERROR
        assert code_of(child, tmp_path / "gone/EpuSession.dm") == Code.READ_ERROR
    with ParserChild([tmp_path / "no root"]) as child:
        assert code_of(child, "EpuSession.dm") == Code.READ_ERROR


# ---- hostile content

BOMB = b'<!DOCTYPE a [<!ENTITY x "' + b"y" * 1000 + b'">]><a>' + b"&x;" * 10_000 + b"</a>"
XXE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><EpuSessionXml>&x;</EpuSessionXml>'
OUTSIDE = b'<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><MicroscopeImage/>'
QUADRATIC = BOMB.replace(b"y" * 1000, b"y" * 58_000)
ATTRIBUTES = b" ".join(b'a%d="1"' % n for n in range(60_000))
SUMMARY = b'<metadata><item name="totalDose">1</item><item name="totalDose">2</item></metadata>'
UTF_16 = "<!DOCTYPE a [<!ENTITY x 'y'>]><EpuSessionXml>&x;</EpuSessionXml>".encode("utf-16")


def mrc_header(*words: int) -> bytes:
    """Return 1024 bytes that begin with some words and say MRC; `nsymbt` is word 23."""
    start = b"".join(word.to_bytes(4, "little") for word in words)
    return start.ljust(208, b"\0") + b"MAP " + bytes(812)


def frames(**changes: str) -> bytes:
    """Return a frame mdoc with some values changed."""
    values = {"TiltAngle": "0", "PixelSpacing": "1.5", "ExposureDose": "40", "NumSubFrames": "40"}
    values |= {"SubFramePath": "X:\\a.tif", "DateTime": "25-Sep-23  14:13:26", **changes}
    lines = [f"{key} = {value}" for key, value in values.items()]
    return "\r\n".join(["T = SerialEM: a", "Voltage = 300", "[FrameSet = 0]", *lines, ""]).encode()


HUGE = mrc_header(64, 64, 1, 2, *[0] * 19, 2**31 - 1)
LOOP = bytearray(tiff_file([{}, {}]))
LOOP[-4:] = LOOP[4:8]  # the last directory says that the first follows

# Every kind of reliability.md 2.11 that is a file, and what becomes of it.
HOSTILE: list[tuple[str, str, bytes, Code]] = [
    ("entities in entities", "a.xml", BOMB, Code.XML_DTD),
    ("entities, quadratic", "a.xml", QUADRATIC, Code.XML_DTD),
    ("an outside entity", "a.dm", XXE, Code.XML_DTD),
    ("an outside DTD", "a.xml", OUTSIDE, Code.XML_DTD),
    ("a DTD in UTF-16", "a.dm", UTF_16, Code.XML_DTD),
    ("an entity of nowhere", "a.xml", b"<MicroscopeImage>&x;</MicroscopeImage>", Code.XML_BROKEN),
    ("wide, no EPU", "a.xml", b"<a>" + b"<k/>" * 1_000_000 + b"</a>", Code.UNSUPPORTED),
    ("wide", "a.xml", b"<MicroscopeImage>" + b"<k/>" * 900_000, Code.XML_TOO_LARGE),
    ("12 MB of elements", "a.dm", b"<SampleXml>" + b"<k/>" * 3_000_000, Code.XML_TOO_LARGE),
    ("many attributes", "a.xml", b"<MicroscopeImage %s/>" % ATTRIBUTES, Code.XML_TOO_LARGE),
    ("12 MB of blanks", "a.xml", b"<MicroscopeImage>" + b" " * 12_000_000, Code.XML_TOO_LARGE),
    ("40 MB of blanks", "a.dm", b"<GridSquareXml>" + b" " * 40_000_000, Code.XML_TOO_LARGE),
    ("deep", "a.xml", b"<MicroscopeImage>" + b"<k>" * 100_000, Code.XML_TOO_LARGE),
    (
        "65 levels",
        "a.dm",
        b"<SampleXml>" + b"<k>" * 64 + b"</k>" * 64 + b"</SampleXml>",
        Code.XML_TOO_LARGE,
    ),
    (
        "a long text",
        "a.xml",
        b"<MicroscopeImage>%s</MicroscopeImage>" % (b"x" * 70_000),
        Code.XML_TOO_LARGE,
    ),
    ("a cut XML", "a.xml", b"<MicroscopeImage><a>", Code.TRUNCATED),
    ("an XML of zeros", "a.xml", bytes(4096), Code.XML_BROKEN),
    ("an empty XML", "a.xml", b"", Code.EMPTY_FILE),
    ("NaN", "a.xml", image_xml(dose_e_m2="NaN"), Code.OUT_OF_RANGE),
    ("1e999", "a.xml", image_xml(dose_e_m2="1e999"), Code.OUT_OF_RANGE),
    ("a negative voltage", "a.xml", image_xml(voltage_V="-300000"), Code.OUT_OF_RANGE),
    ("metres for angstroms", "a.xml", image_xml(pixel_m="1.05"), Code.OUT_OF_RANGE),
    ("a decimal comma", "a.xml", image_xml(dose_e_m2="4,0E+21"), Code.OUT_OF_RANGE),
    (
        "an mdoc key given twice",
        "a.mdoc",
        frames(NumSubFrames="12\r\nNumSubFrames = 40"),
        Code.BAD_HEADER,
    ),
    ("an mdoc without a section", "a.mdoc", b"Voltage = 300\n", Code.TRUNCATED),
    ("12 MB of mdoc", "a.mdoc", b"a = b\n" * 2_000_000, Code.TOO_LARGE),
    ("a long line", "a.mdoc", b"T = " + b"x" * 100_000, Code.TOO_LARGE),
    (
        "2,001 sections",
        "a.mdoc",
        b"".join(b"[ZValue = %d]\n" % n for n in range(2001)),
        Code.TOO_LARGE,
    ),
    ("a zero byte in an mdoc", "a.mdoc", frames(Note="a\0b"), Code.BAD_HEADER),
    ("an mdoc in UTF-16", "a.mdoc", frames().decode().encode("utf-16"), Code.BAD_HEADER),
    ("a dose of NaN", "a.mdoc", frames(ExposureDose="NaN"), Code.OUT_OF_RANGE),
    ("a tilt of NaN", "a.mdoc", frames(TiltAngle="NaN"), Code.OUT_OF_RANGE),
    ("a pixel of 1e999", "a.mdoc", frames(PixelSpacing="1e999"), Code.OUT_OF_RANGE),
    ("a tilt that is no number", "a.mdoc", frames(TiltAngle="abc"), Code.OUT_OF_RANGE),
    ("signs for a terminal", "a.mdoc", frames(SubFramePath="a\x1b[2J.tif"), Code.OUT_OF_RANGE),
    ("an empty MRC", "a.mrc", b"", Code.EMPTY_FILE),
    ("a short MRC", "a.mrc", b"abc", Code.TRUNCATED),
    ("an MRC of zeros", "a.mrc", mrc_header(), Code.BAD_HEADER),
    ("50,000 x 50,000", "a.mrc", mrc_header(50_000, 50_000, 50_000, 2), Code.TOO_LARGE),
    ("nsymbt of 2 GB", "a.mrc", HUGE, Code.TOO_LARGE),
    ("nx of 2^31 - 1", "a.mrc", mrc_header(2**31 - 1, 1, 1, 2), Code.BAD_HEADER),
    ("nx of -4", "a.mrc", mrc_header(2**32 - 4, 1, 1, 2), Code.BAD_HEADER),
    ("5,000 sections", "a.mrc", mrc_header(1, 1, 5000, 2), Code.TOO_LARGE),
    ("a mode of nowhere", "a.mrc", mrc_header(1, 1, 1, 5), Code.BAD_HEADER),
    ("a complex mode", "a.mrc", mrc_header(1, 1, 1, 4), Code.UNSUPPORTED),
    ("directories in a ring", "a.tif", bytes(LOOP), Code.BAD_HEADER),
    ("no entries", "a.tif", b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0", Code.BAD_HEADER),
    ("4,097 directories", "a.tif", tiff_file([{}] * 4097), Code.TOO_LARGE),
    ("a side of 2^31", "a.tif", tiff_file([{256: (4, 2**31)}]), Code.TOO_LARGE),
    ("a million strips", "a.tif", tiff_file([{257: (4, 10**6), 278: (4, 1)}]), Code.TOO_LARGE),
    ("a long description", "a.tif", tiff_file([{270: (2, b"x" * 2**21)}]), Code.TOO_LARGE),
    ("tiles", "a.tif", tiff_file([{322: (4, 16)}]), Code.UNSUPPORTED),
    ("entities in an EER", "a.eer", eer_file(document=XXE), Code.XML_DTD),
    ("an EER that contradicts itself", "a.eer", eer_file(document=SUMMARY), Code.XML_BROKEN),
    ("an EER before TIFF", "a.eer", bytes(99) + b"ThermoFisherECComprOK000", Code.UNSUPPORTED),
    ("a DM4 of all bits", "a.dm4", b"\0\0\0\4" + b"\xff" * 4000, Code.BAD_HEADER),
    ("a DM4 of zeros", "a.dm4", bytes(4000), Code.BAD_HEADER),
    ("a cut DM4", "a.dm4", dm_file(np.zeros((3, 4), np.float32))[:200], Code.TRUNCATED),
    ("a text", "a.txt", b"hello", Code.UNSUPPORTED),
]


def test_every_hostile_file_gets_its_code_within_the_limits(tmp_path: Path):
    assert (MEMORY_MB, LIMIT_S) == (512, 10.0)
    with ParserChild([tmp_path]) as child:
        good = child.parse(session(tmp_path))
        only = pid_of(child)
        for label, name, content, code in HOSTILE:
            path = session(tmp_path, f"bad/{name}", content)
            begun = time.monotonic()
            assert (label, code_of(child, path)) == (label, code)
            assert time.monotonic() - begun < LIMIT_S, label
            assert peak_MB(pid_of(child)) < MEMORY_MB, label
            # One child sees all of them through: none needed the limits.
            assert child.parse("EpuSession.dm") == good and pid_of(child) == only, label


CLAIMS: list[tuple[str, bytes]] = [
    ("a.mrc", mrc_header(32_768, 32_768, 4096, 2)),  # 17 TB
    ("a.tif", tiff_file([{256: (4, 32_768), 257: (4, 32_768), 278: (4, 32_768), 279: (4, 2**31)}])),
    ("a.tif", tiff_file([{273: (16, 2**63)}], big=True)),
    ("a.eer", eer_file(3)[:-40]),
]


def test_a_file_that_claims_more_than_it_has_is_not_complete(tmp_path: Path):
    with ParserChild([tmp_path]) as child:
        for name, content in CLAIMS:
            assert child.parse(session(tmp_path, name, content)).get("complete") is False
        assert peak_MB(pid_of(child)) < 128


def test_carriage_returns_alone_and_any_order_of_keys_are_an_mdoc(tmp_path: Path):
    head, lines = frames().decode().split("[FrameSet = 0]\r\n")
    turned = "\r".join(reversed(lines.strip().split("\r\n")))
    content = f"{head}[FrameSet = 0]\r{turned}\r".encode()
    with ParserChild([tmp_path]) as child:
        wanted = child.parse(session(tmp_path, "a.mdoc", frames()))
        assert child.parse(session(tmp_path, "b.mdoc", content)).fields == wanted.fields


def test_the_largest_document_that_is_let_through_needs_little_memory(tmp_path: Path):
    with ParserChild([tmp_path]) as child:
        assert child.parse(large(tmp_path)).get("n_selected") == 74_000
        assert peak_MB(pid_of(child)) < 256


# ---- the limits themselves


def test_a_file_that_needs_more_memory_costs_a_refusal(tmp_path: Path):
    with ParserChild([tmp_path]) as child:
        child.parse(session(tmp_path))
        status = Path(f"/proc/{pid_of(child)}/status").read_text()
        needed_MB = int(status.split("VmSize:")[1].split()[0]) // 1024
    with ParserChild([tmp_path], memory_MB=needed_MB + 40) as child:
        assert code_of(child, large(tmp_path)) in (Code.POISON, Code.XML_TOO_LARGE)
        assert child.parse(session(tmp_path)).get("session_name") == "s"
        limits = Path(f"/proc/{pid_of(child)}/limits").read_text()
        assert f"{(needed_MB + 40) * 2**20}" in next(
            x for x in limits.splitlines() if "address space" in x
        )


def test_a_file_that_takes_too_long_costs_a_refusal_and_a_restart(tmp_path: Path):
    with ParserChild([tmp_path], limit_s=0.3) as child:
        session(tmp_path)
        first = child.parse("EpuSession.dm")
        before = pid_of(child)
        path = large(tmp_path)
        results = child.parse_many([("EpuSession.dm", ""), (path, ""), ("EpuSession.dm", "")])
        assert isinstance(results[1], Refused) and results[1].code == Code.POISON
        assert "within 0.3 s" in results[1].detail
        assert results[0] == results[2] == first
        assert pid_of(child) != before


def test_a_stopped_child_is_replaced(tmp_path: Path):
    with ParserChild([tmp_path], limit_s=0.3) as child:
        child.parse(session(tmp_path))
        before = pid_of(child)
        os.kill(before, signal.SIGSTOP)
        assert code_of(child, "EpuSession.dm") == Code.POISON
        assert child.parse("EpuSession.dm").kind == "epu_session"
        assert not Path(f"/proc/{before}").exists()


def test_a_child_that_was_killed_from_outside_costs_nothing(tmp_path: Path):
    with ParserChild([tmp_path]) as child:
        child.parse(session(tmp_path))
        for _ in range(3):
            os.kill(pid_of(child), signal.SIGKILL)
            assert child.parse("EpuSession.dm").kind == "epu_session"


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false"])
def test_a_child_that_cannot_start_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
):
    monkeypatch.setattr("sys.executable", program)
    with ParserChild([tmp_path]) as child, pytest.raises(Transient, match="does not start"):
        child.parse(session(tmp_path))


def test_every_thread_may_use_it(tmp_path: Path):
    for number in range(4):
        session(tmp_path, f"{number}.dm", SESSION.replace(b">s<", b">%d<" % number))
    wrong: list[str] = []
    with ParserChild([tmp_path]) as child:

        def read(number: int) -> None:
            for _ in range(50):
                got = child.parse(f"{number}.dm").get("session_name")
                if got != str(number):
                    wrong.append(got)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        if child._child is not None:
            child._child.process.kill()
        for thread in threads:
            thread.join()
    assert not wrong


def test_it_starts_again_after_closing_and_leaves_no_zombie(tmp_path: Path):
    child = ParserChild([tmp_path])
    child.close()
    child.parse(session(tmp_path))
    before = pid_of(child)
    child.close()
    child.close()
    assert not Path(f"/proc/{before}").exists()
    assert child.parse("EpuSession.dm").kind == "epu_session"
    child.close()


def test_it_dumps_no_core_and_inherits_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLDSTREAM_SECRET", "s3cret")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY  # of this process
    with ParserChild([tmp_path]) as child:
        child.parse(session(tmp_path))
        place = Path(f"/proc/{pid_of(child)}")
        assert b"s3cret" not in (place / "environ").read_bytes()
        core = next(x for x in (place / "limits").read_text().splitlines() if "core" in x)
        assert core.split()[4:6] == ["0", "0"]
        assert (place / "cwd").readlink() == Path("/")
        open_files = {os.readlink(one) for one in (place / "fd").iterdir()}
        assert not any(str(tmp_path) in one for one in open_files)
