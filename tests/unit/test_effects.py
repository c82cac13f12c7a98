"""Effects of operators on real files and through a real `mail` program of our own."""

import errno
import os
import stat
import sys
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from schemer import effects, mail
from schemer.actions import CopyFile, DeleteFile, Effect, MoveFile, SendMail, TouchFile
from schemer.effects import perform
from schemer.errors import SchemeError

# A shell would take each of these as an order, an option or several words.
HOSTILE = [
    "-rf",
    "--help",
    "two words",
    "semi;touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "| touch pwned",
    "&& touch pwned",
    "> pwned",
    "'quote",
    '"quotes"',
    "line\nbreak; touch pwned",
    "$HOME",
    "~nobody-of-that-name",
    "back\\slash",
    "#comment",
    "ünïcode",
    "{a,b}",
    "!history",
]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write(root: Path, path: str, text: str = "text") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_effects_are_plain_data():
    for one in (
        TouchFile("a"),
        CopyFile("a", "b"),
        MoveFile("a", "b"),
        DeleteFile("a*"),
        SendMail("a@b", "s", ("x",)),
    ):
        assert msgspec.json.decode(msgspec.json.encode(one), type=Effect) == one


# Touch


def test_touch_makes_or_empties_a_file(root):
    assert perform(TouchFile("a"), root) == "touched 'a'"
    write(root, "a", "full")
    perform(TouchFile("a"), root)
    assert (root / "a").read_text() == ""


@pytest.mark.parametrize("path", ["gone/a", "", "folder", "nul\0"])
def test_touch_is_fatal_where_the_file_cannot_be(root, path):
    (root / "folder").mkdir()
    with pytest.raises(SchemeError, match="touch_file needs a folder that is there"):
        perform(TouchFile(path), root)


def test_touch_takes_no_wildcards(root):
    write(root, "a1", "full")
    perform(TouchFile("a*"), root)
    assert names(root) == ["a*", "a1"] and (root / "a1").read_text() == "full"


# Copy


def test_copy_to_a_name_and_into_a_folder(root):
    write(root, "a").chmod(0o755)
    assert perform(CopyFile("a", "b"), root) == "copied 'a' to 'b'"
    assert stat.S_IMODE((root / "b").stat().st_mode) == 0o755
    (root / "folder").mkdir()
    perform(CopyFile("a", "folder"), root)
    perform(CopyFile("a", "new/deep/"), root)
    perform(CopyFile("a", "other/name"), root)
    perform(CopyFile(str(root / "a"), str(root / "absolute/c")), root)
    assert names(root) == ["a", "absolute/c", "b", "folder/a", "new/deep/a", "other/name"]


def test_copy_takes_wildcards_as_a_shell_does(root):
    for name in ("m1.tif", "m2.tif", ".m3.tif", "x[1].star"):
        write(root, f"in/{name}")
    assert perform(CopyFile("in/*.tif", "out/"), root) == "copied 'in/*.tif' to 'out/' (2 files)"
    perform(CopyFile("in/x[1].star", "out/"), root)  # matches nothing, so it is a name
    assert names(root / "out") == ["m1.tif", "m2.tif", "x[1].star"]
    perform(CopyFile("in/m1.tif", "o*t/again.tif"), root)
    line = perform(CopyFile("in/*.tif", "out/m1.tif"), root)
    assert "2 files match and the target is no folder" in line and line.startswith("not copied")
    write(root, "one/in/m9.tif")
    perform(CopyFile("one/*/m9.tif", "ou?"), root)
    assert "m9.tif" in names(root / "out")


def test_copy_replaces_in_one_step(root, monkeypatch):
    write(root, "a", "new")
    write(root, "b", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "bad")))
    assert perform(CopyFile("a", "b"), root) == "not copied 'a' to 'b': 'a': bad"
    assert (root / "b").read_text() == "old" and names(root) == ["a", "b"]
    monkeypatch.undo()
    for _ in range(2):  # again after a kill
        perform(CopyFile("a", "b"), root)
        assert (root / "b").read_text() == "new"


def test_copy_goes_through_a_link(root):
    write(root, "a", "new")
    write(root, "real/b", "old")
    (root / "link").symlink_to("real/b")
    perform(CopyFile("a", "link"), root)
    assert (root / "link").is_symlink() and (root / "real/b").read_text() == "new"


def test_failures_of_copies_are_told_and_ignored(root):
    write(root, "a")
    (root / "folder/sub/a").mkdir(parents=True)
    os.mkfifo(root / "pipe")
    for source, target, words in (
        ("gone", "b", "No such file"),
        ("folder", "b", "folders are not copied"),
        ("a", "a", "same file"),
        ("a", "folder/sub", "is no file"),
        ("a", "pipe", "is no file"),
        ("a", "a/b", "File exists"),
        ("a", "", "name is empty"),
        ("", "b", "name is empty"),
        ("nul\0", "b", "null"),
    ):
        line = perform(CopyFile(source, target), root)
        assert line.startswith("not copied") and words in line, line
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert names(root) == ["a"]


def test_many_failures_make_one_short_line(root):
    for number in range(9):
        (root / f"d{number}").mkdir()
    write(root, "d", "x")
    line = perform(CopyFile("d*", "out/"), root)
    assert "not all" in line and "and 6 more" in line and "\n" not in line


def test_the_home_folder(root, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path, "home/gain.mrc")
    perform(CopyFile("~/gain.mrc", "Movies/"), root)
    perform(DeleteFile("~/gain.mr?"), root)
    assert names(root) == ["Movies/gain.mrc"] and names(tmp_path / "home") == []


# Move


def test_move_files_and_folders(root):
    write(root, "a")
    write(root, "folder/b")
    assert perform(MoveFile("a", "new/a2"), root) == "moved 'a' to 'new/a2'"
    perform(MoveFile("folder", "new"), root)
    write(root, "c1", "new")
    write(root, "c2", "old")
    perform(MoveFile("c1", "c2"), root)
    assert names(root) == ["c2", "new/a2", "new/folder/b"]
    assert (root / "c2").read_text() == "new"


def test_a_move_may_be_repeated(root):
    write(root, "a")
    write(root, "m1.tif")
    for effect in (MoveFile("a", "b"), MoveFile("m*.tif", "old/"), MoveFile("b", "old")):
        first = perform(effect, root)
        assert first.startswith("moved")
        perform(effect, root)
    assert perform(MoveFile("b", "old"), root) == "moved 'b' to 'old'"
    assert names(root) == ["old/b", "old/m1.tif"]


def test_failures_of_moves_are_told_and_ignored(root):
    write(root, "a")
    write(root, "folder/a/b")
    os.mkfifo(root / "pipe")
    for source, target, words in (
        ("gone", "nowhere", "No such file"),
        ("a", "a", "same file"),
        ("a", "folder", "is no file"),
        ("a", "pipe", "is no file"),
        ("folder", "folder/a", "Invalid argument"),
        ("folder", "a", "Not a directory"),
    ):
        line = perform(MoveFile(source, target), root)
        assert line.startswith("not moved") and words in line, line
    assert names(root) == ["a", "folder/a/b"] and (root / "pipe").is_fifo()


@pytest.fixture
def other_disk(monkeypatch):
    """Let the first rename of each move find another file system, as the kernel would say it."""
    real, away = os.rename, set()

    def rename(source, target):
        if Path(source).name not in away and not Path(source).name.endswith(".tmp"):
            away.add(Path(source).name)
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(effects.os, "rename", rename)


@pytest.mark.usefixtures("other_disk")
def test_move_to_another_disk(root):
    write(root, "a", "text")
    write(root, "folder/deep/b")
    (root / "folder/link").symlink_to("deep/b")
    perform(MoveFile("a", "out/"), root)
    perform(MoveFile("folder", "out/"), root)
    assert names(root) == ["out/a", "out/folder/deep/b", "out/folder/link"]
    assert (root / "out/folder/link").is_symlink()


# Delete


def test_delete_takes_wildcards_and_leaves_folders(root):
    for name in ("a1", "a2", "b", ".a3"):
        write(root, name)
    (root / "a4").mkdir()
    line = perform(DeleteFile("a*"), root)
    assert line == "deleted 'a*' (2 files), not all: 'a4': Is a directory"
    assert names(root) == [".a3", "b"] and (root / "a4").is_dir()
    assert perform(DeleteFile("a1"), root) == "not deleted 'a1': nothing is there"
    assert perform(DeleteFile(""), root).startswith("not deleted")
    assert perform(DeleteFile("nul\0"), root).startswith("not deleted")
    perform(DeleteFile("b"), root)
    assert names(root) == [".a3"]


# Names are only names


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_only_a_name(root, name, monkeypatch):
    monkeypatch.chdir(root)
    perform(TouchFile(name), root)
    assert names(root) == [name]
    write(root, name, "text")
    lines = [
        perform(CopyFile(name, "copy"), root),
        perform(CopyFile("copy", f"to {name}"), root),
        perform(MoveFile(f"to {name}", f"folder {name}/"), root),
        perform(DeleteFile(name), root),
    ]
    assert names(root) == sorted(["copy", f"folder {name}/to {name}"])
    assert all("\n" not in line and not line.startswith("not") for line in lines), lines


# Mail

MAIL = """#!{python}
import json, os, sys
text = sys.stdin.read()
with open({log!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], text]) + "\\n")
sys.stderr.write({says!r})
sys.exit({code})
"""
NOON = datetime(2025, 6, 1, 12, 0, 0)


@pytest.fixture
def mailbox(tmp_path, monkeypatch):
    """Put a `mail` program into PATH; returns a function that makes it, and one that reads."""
    log = tmp_path / "mail.log"
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def make(code=0, says=""):
        program = programs / "mail"
        program.write_text(MAIL.format(python=sys.executable, log=str(log), says=says, code=code))
        program.chmod(0o755)

    def read():
        return [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]

    return make, read


def test_mail_goes_to_the_mail_program(mailbox, root):
    make, read = mailbox
    make()
    message = SendMail("a.b+c@lab.org, op", "Schemer", ("input1: x = 5", "", "~!touch pwned", "."))
    assert perform(message, root, now=NOON) == "mail 'Schemer' sent to a.b+c@lab.org, op"
    ((arguments, text),) = read()
    assert arguments == ["-s", "Schemer", "-r", "RELION", "a.b+c@lab.org", "op"]
    assert text == "Sun Jun  1 12:00:00 2025\ninput1: x = 5\n\n ~!touch pwned\n .\n"


def test_mail_text_of_several_lines_is_harmless(mailbox):
    make, read = mailbox
    make()
    effects.send_mail(SendMail("op", "Scheme: a\nb", ("one\n~!two\r\n.\nthree",)), now=NOON)
    ((arguments, text),) = read()
    assert arguments[1] == "Scheme: a b"
    assert text.splitlines()[1:] == ["one", " ~!two", " .", "three"]


@pytest.mark.parametrize(
    "address",
    ["-Xfile", "|touch pwned", "/etc/pwned", "./pwned", "+pwned", "a@b;touch", "$(x)@b", "a@-b",
     "a`b`", "!x", "", " , ", "ok@b.org -Xfile"],
)  # fmt: skip
def test_addresses_that_are_none(mailbox, address, root):
    make, _ = mailbox
    make()
    line = perform(SendMail(address, "Schemer", ()), root)
    assert "not sent" in line and "set the string variable email" in line
    assert not (root.parent / "mail.log").exists()


def test_mail_that_fails_is_told_and_never_raised(mailbox, root, monkeypatch):
    make, _ = mailbox
    message = SendMail("op", "Schemer", ("x",))
    assert "there is no `mail` program" in perform(message, root)
    make(code=3, says="no\nspool")
    assert perform(message, root) == "mail 'Schemer' to op not sent: `mail` ended with 3: no spool"
    (root.parent / "bin/mail").chmod(0o644)
    assert "not sent" in perform(message, root)
    (root.parent / "bin/mail").chmod(0o755)
    (root.parent / "bin/mail").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(mail, "_TIMEOUT_S", 0.2)
    assert "did not end within 0.2 s" in perform(message, root)
    assert "not sent" in perform(SendMail("op", "a\0b", ("x",)), root)
