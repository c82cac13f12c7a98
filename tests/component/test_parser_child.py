"""The parser child: the same records, the right code for every hostile file, no way around."""

import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from mdcatch.parsers import Record, parse
from mdcatch.parsers.beneath import open_beneath
from mdcatch.parsers.child import ParserChild
from services.kit.errors import Code, Refused, Transient
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


def mrc_header(*words: int) -> bytes:
    """Return 1024 bytes that begin with some words and say MRC; `nsymbt` is word 23."""
    start = b"".join(word.to_bytes(4, "little") for word in words)
    return start.ljust(208, b"\0") + b"MAP " + bytes(812)


ZERO_MRC = mrc_header()
HUGE_MRC = mrc_header(50_000, 50_000, 50_000, 2)
EXTENDED_MRC = mrc_header(64, 64, 1, 2, *[0] * 19, 2**31 - 1)
LOOP_TIFF = b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"


@pytest.mark.parametrize(
    ("name", "content", "codes"),
    [
        ("bomb.xml", BOMB, {Code.XML_DTD}),
        ("xxe.dm", XXE, {Code.XML_DTD}),
        (
            "wide.xml",
            b"<a>" + b"<k/>" * 1_000_000 + b"</a>",
            {Code.UNSUPPORTED},
        ),
        ("wide.xml", b"<MicroscopeImage>" + b"<k/>" * 900_000, {Code.XML_TOO_LARGE}),
        ("big.xml", b"<MicroscopeImage>" + b" " * 12_000_000, {Code.XML_TOO_LARGE}),
        ("big.dm", b"<GridSquareXml>" + b" " * 40_000_000, {Code.XML_TOO_LARGE}),
        ("deep.xml", b"<MicroscopeImage>" + b"<k>" * 100_000, {Code.XML_TOO_LARGE}),
        (
            "text.xml",
            b"<MicroscopeImage>" + b"x" * 70_000 + b"</MicroscopeImage>",
            {Code.XML_TOO_LARGE},
        ),
        ("cut.xml", b"<MicroscopeImage><a>", {Code.TRUNCATED}),
        ("nul.xml", bytes(4096), {Code.XML_BROKEN}),
        ("empty.mrc", b"", {Code.EMPTY_FILE}),
        ("short.mrc", b"abc", {Code.TRUNCATED, Code.BAD_HEADER}),
        ("zero.mrc", ZERO_MRC, {Code.BAD_HEADER}),
        ("huge.mrc", HUGE_MRC, {Code.BAD_HEADER, Code.TRUNCATED, Code.TOO_LARGE}),
        ("extended.mrc", EXTENDED_MRC, {Code.BAD_HEADER, Code.TRUNCATED, Code.TOO_LARGE}),
        ("loop.tif", LOOP_TIFF, {Code.BAD_HEADER, Code.TRUNCATED}),
        ("big.mdoc", b"a = b\n" * 2_000_000, {Code.TOO_LARGE}),
        ("line.mdoc", b"T = " + b"x" * 100_000, {Code.TOO_LARGE, Code.BAD_HEADER}),
        ("notes.txt", b"hello", {Code.UNSUPPORTED}),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_hostile_file_gets_its_code_within_the_limits(
    tmp_path: Path, name: str, content: bytes, codes: set[Code]
):
    with ParserChild([tmp_path]) as child:
        begun = time.monotonic()
        assert code_of(child, session(tmp_path, name, content)) in codes
        assert time.monotonic() - begun < 10.0
        assert peak_MB(pid_of(child)) < 512
        assert child.parse(session(tmp_path)).kind == "epu_session"


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
