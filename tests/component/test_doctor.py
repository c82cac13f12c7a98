"""The doctor finds faults that were planted for real, and says what to do about each.

Full disks, shares that hang and read-only mounts are made in a mount namespace of the test's own,
where that is allowed. Two things cannot be planted without harm and are replaced: the kernel's
word on network mounts (a file in place of /proc/mounts), and a clock that is set (its readings).
"""

import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from services import doctor
from services.doctor import Finding, machine, run
from services.kit import events, keys
from services.kit import session as sessions
from services.kit.journal import Draft, Journal
from services.kit.paths import Layout
from services.kit.session import Session
from tests.unit.test_docs import ROOT

NOBODY = 65534


@pytest.fixture
def site(tmp_path: Path):
    """Write the site's file; returns its path."""

    def write(text: str, name: str = "coldstream.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A sound project with a session."""
    raw = tmp_path / "raw" / "session1"
    raw.mkdir(parents=True)
    layout = Layout(tmp_path / "project")
    layout.make()
    sessions.save(layout, Session(name="session1", raw=str(raw)))
    return layout.project


def problems(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.level != "ok"]


def the(found: list[Finding], check: str, subject: str = "") -> Finding:
    """Return the one problem of a check; every problem has a remedy."""
    wanted = [
        one for one in problems(found) if one.check == check and one.subject.startswith(subject)
    ]
    assert len(wanted) == 1, [one.line for one in problems(found)]
    assert wanted[0].remedy
    assert "\n" not in wanted[0].line
    return wanted[0]


CHILD = """
import ctypes, json, os, subprocess, sys
from pathlib import Path
import msgspec, torch
from services.doctor import run
plan = json.loads(sys.argv[1])
for command in plan.get("mounts", ()):
    subprocess.run(command, check=True)
for path, size in plan.get("fill", ()):
    with open(path, "wb") as file:
        try:
            file.write(bytes(size)); file.flush()
        except OSError:
            pass
for path, number in plan.get("crowd", ()):
    for one in range(number):
        try:
            open(f"{path}/{one}", "wb").close()
        except OSError:
            break
for path in plan.get("hang", ()):
    fuse = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"nobody", path.encode(), b"fuse.sshfs", 0, data):
        sys.exit(77)
if plan.get("user"):
    os.setgroups([]); os.setresgid(*[plan["user"]] * 3); os.setresuid(*[plan["user"]] * 3)
if plan.get("instances"):
    library = ctypes.CDLL(None)
    while library.inotify_init1(0) >= 0:
        pass
arguments = {key: Path(value) for key, value in plan["arguments"].items()}
sys.stdout.buffer.write(msgspec.json.encode(run(**arguments)))
sys.stdout.flush()
os._exit(0)
"""


def elsewhere(arguments: dict[str, Path], **plan: object) -> list[Finding]:
    """Run the doctor in a mount namespace of its own, where the plan's faults are planted."""
    plan["arguments"] = {key: str(value) for key, value in arguments.items()}
    become = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid():
        become += ["--user", "--map-root-user"]
    try:
        probe = subprocess.run([*become, "true"], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if probe.returncode:
        pytest.skip("mount namespaces are not allowed here")
    done = subprocess.run(
        [*become, sys.executable, "-c", CHILD, json.dumps(plan)],
        capture_output=True,
        timeout=200,
        cwd=ROOT,
    )
    if done.returncode == 77:
        pytest.skip("FUSE is not allowed here")
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=list[Finding])


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be an account without rights; a person who is none already stays."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        for one in path.rglob("*"):
            with suppress(OSError):
                one.chmod(0o700)


# The site's file


def test_a_sound_site_has_no_errors(site, tmp_path, project):
    (tmp_path / "data" / "session").mkdir(parents=True)
    (tmp_path / "gains").mkdir()
    (tmp_path / "gains" / "x.gain").write_bytes(b"x")
    (tmp_path / "data" / "m_gain.tiff").write_bytes(b"x")
    (tmp_path / "mtf300.star").write_text(
        "data_\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n0 1\n0.5 0.4\n"
    )
    secret = keys.new_pair(tmp_path / "keys", "host")[1]
    text = f"""
    [roots.a]
    path = "{tmp_path}/data"
    [[microscopes]]
    id = "1"
    name = "Krios"
    spherical_aberration_mm = 2.7
    voltage_kV = 300
    [[microscopes.cameras]]
    model = "K3"
    gain = ["*_gain.tiff"]
    gain_folder = "{tmp_path}/gains"
    mtf = {{counting = "{tmp_path}/mtf{{kV}}.star"}}
    [defaults]
    projects = "{tmp_path}"
    [security]
    key = "{secret}"
    """
    found = run(site(text), project)
    assert [one.line for one in found if one.level == "error"] == []
    told = {(one.check, one.subject) for one in found}
    for wanted in (
        ("config", str(tmp_path / "coldstream.toml")),
        ("root", "roots.a"),
        ("gain", "Krios/K3"),
        ("mtf", "Krios/K3"),
        ("key", "security.key"),
        ("project", "session"),
        ("clock", "steps"),
    ):
        assert wanted in told


def test_unknown_keys_and_wrong_values_are_all_told(site):
    text = '[defaults]\npickr = "log"\nsettle_s = "long"\n[root.a]\npath = "/"'
    found = [one for one in run(site(text)) if one.check == "config"]
    assert [one.level for one in found] == ["error"] * 3
    assert "did you mean picker" in found[0].remedy
    assert found[1].line.endswith("write a number of at least 0 and of at most 86400")
    assert "did you mean roots?" in found[2].remedy


def test_a_file_that_is_not_there_or_no_toml(site, tmp_path, monkeypatch):
    assert "is not a file" in the(run(tmp_path / "absent.toml"), "config").detail
    assert "is no TOML" in the(run(site("[[")), "config").detail
    monkeypatch.setenv("COLDSTREAM_CONFIG", "/absent.toml")
    assert "COLDSTREAM_CONFIG /absent.toml" in the(run(), "config").detail


def test_a_file_that_others_can_change(site):
    path = site("")
    path.chmod(0o664)
    assert "chmod go-w" in the(run(path), "config").remedy


# Roots


@pytest.mark.parametrize(
    ("make", "level", "said"),
    [
        (lambda path: None, "error", "is not there"),
        (lambda path: path.write_bytes(b""), "error", "is not a folder"),
        (lambda path: path.mkdir(), "warning", "is empty"),
    ],
)
def test_a_wrong_root(site, tmp_path, make, level, said):
    make(tmp_path / "data")
    one = the(run(site(f'[roots.a]\npath = "{tmp_path}/data"')), "root", "roots.a")
    assert (one.level, said in one.detail) == (level, True)


def test_a_root_that_is_the_whole_machine(site):
    assert "the whole machine" in the(run(site('[roots.a]\npath = "/"')), "root").detail


@pytest.mark.parametrize("inner", ["", "session", "session/movie.tiff"])
def test_a_root_that_the_account_cannot_read(open_folder, inner):
    root = open_folder / "data"
    (root / "session").mkdir(parents=True)
    config = open_folder / "site.toml"
    config.write_text(f'[roots.a]\npath = "{root}"')
    if inner.endswith(".tiff"):
        config.write_text(f'[roots.a]\npath = "{root}/session"')
        (root / inner).write_bytes(b"x")
    (root / inner).chmod(0)
    with as_nobody():
        one = the(run(config), "root", "roots.a")
    assert "cannot be read by this account" in one.detail
    assert "setfacl" in one.remedy


def test_a_share_that_does_not_answer(site, tmp_path):
    (tmp_path / "share").mkdir()
    text = f'[roots.a]\npath = "{tmp_path}/share"\n[roots.b]\npath = "{tmp_path}"'
    found = elsewhere({"config": site(text)}, hang=[str(tmp_path / "share")])
    one = the(found, "root", "roots.a")
    assert "does not answer within 5 s" in one.detail


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("data", "data/inner", "holds roots.b"),
        ("data/inner", "data", "lies inside roots.b"),
        ("data", "link", "are one folder"),
    ],
)
def test_roots_in_each_other(site, tmp_path, first, second, said):
    (tmp_path / "data" / "inner" / "x").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    text = f'[roots.a]\npath = "{tmp_path}/{first}"\n[roots.b]\npath = "{tmp_path}/{second}"'
    assert said in the(run(site(text)), "root", "roots.a").detail


def test_a_root_that_holds_the_project(site, tmp_path, project):
    found = run(site(f'[roots.a]\npath = "{tmp_path}"'), project)
    assert "holds --project" in the(found, "root", "roots.a").detail


def network(tmp_path: Path) -> Path:
    """Return a /proc in which the temporary folder is mounted from a file server."""
    proc = tmp_path / "proc"
    proc.mkdir()
    lines = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n"
    (proc / "mounts").write_text(lines)
    return proc


def test_the_file_system_of_each_root_says_how_it_is_watched(site, tmp_path):
    (tmp_path / "data" / "x").mkdir(parents=True)
    text = f'[roots.a]\npath = "{tmp_path}/data"\n'
    local = [one.detail for one in run(site(text)) if one.subject == "roots.a"]
    assert any("inotify and polling" in detail for detail in local)
    proc = network(tmp_path)
    shared = [one.detail for one in run(site(text), proc=proc) if one.subject == "roots.a"]
    assert any("is on nfs4: only polling" in detail for detail in shared)
    hasty = the(run(site(text + "settle_s = 2"), proc=proc), "root", "roots.a")
    assert "2 s of settling" in hasty.detail


# Files of cameras


def camera(tmp_path: Path, text: str, kV: str = "voltage_kV = 300") -> str:
    (tmp_path / "data" / "session").mkdir(parents=True, exist_ok=True)
    return f"""
    [roots.a]
    path = "{tmp_path}/data"
    [[microscopes]]
    id = "1"
    name = "Krios"
    spherical_aberration_mm = 2.7
    {kV}
    [[microscopes.cameras]]
    model = "K3"
    {text}
    """


def test_a_gain_pattern_that_matches_nothing(site, tmp_path):
    text = camera(tmp_path, 'gain = ["*_gain.tiff", "*_ref.mrc"]')
    (tmp_path / "data" / "session" / "x_GAIN.tiff").write_bytes(b"")
    one = the(run(site(text)), "gain", "Krios/K3")
    assert "*_ref.mrc matches no file of the roots" in one.detail


def test_a_gain_folder_that_is_missing_or_empty(site, tmp_path):
    path = site(camera(tmp_path, f'gain_folder = "{tmp_path}/gains"'))
    missing = the(run(path), "gain")
    assert (missing.level, "cannot be read: No such file" in missing.detail) == ("error", True)
    (tmp_path / "gains").mkdir()
    assert "holds no gain file" in the(run(path), "gain").detail


def test_an_mtf_that_is_missing_or_none(site, tmp_path):
    pattern = f'mtf = {{counting = "{tmp_path}/k3_{{kV}}.star"}}'
    path = site(camera(tmp_path, pattern))
    assert f"{tmp_path}/k3_300.star is not there" in the(run(path), "mtf").detail
    mtf = tmp_path / "k3_300.star"
    mtf.write_text("data_\nloop_\n_rlnX #1\n1\n")
    assert "has no table with rlnResolutionInversePixel" in the(run(path), "mtf").detail
    mtf.write_bytes(b"\xff\xfe not text")
    assert the(run(path), "mtf").level == "error"
    open_voltage = site(camera(tmp_path, pattern, kV=""))
    mtf.unlink()
    assert "k3_300.star is not there" in the(run(open_voltage), "mtf").detail


def test_a_picking_model_that_is_missing(site):
    found = run(site('[defaults]\npicker_model = "/absent.sav"'))
    assert the(found, "picker").detail == "/absent.sav is not a file"


def test_keys(site, tmp_path):
    public, secret = keys.new_pair(tmp_path / "keys", "host")

    def key(path: Path) -> Finding:
        return the(run(site(f'[security]\nkey = "{path}"')), "key", "security.key")

    secret.chmod(0o640)
    assert key(secret).remedy == f"chmod 600 {secret}"
    assert "No such file" in key(tmp_path / "absent").remedy
    (tmp_path / "text").write_text("no key")
    assert "is not a usable key file" in key(tmp_path / "text").detail
    assert "is a public key" in key(public).detail
    secret.chmod(0o600)
    given = the(run(site(f'[security]\nallowed = ["{public}", "{secret}"]')), "key")
    assert (given.subject, "give away only .public" in given.detail) == (
        "security.allowed[2]",
        True,
    )


# The project


def test_a_journal_on_a_share_is_refused(tmp_path, project):
    one = the(run(None, project, network(tmp_path)), "project", "--project")
    assert "network file system (nfs4" in one.detail
    assert one.remedy == "put the project on a local disk"


def test_a_project_that_is_missing_or_without_a_session(tmp_path):
    found = run(None, tmp_path / "absent")
    assert "is not a folder" in the(found, "project", "--project").detail
    assert "has no coldstream session" in the(found, "project", "session").detail


def test_a_project_that_cannot_be_written_to(open_folder):
    (open_folder / "project").mkdir()
    (open_folder / "project").chmod(0o555)
    with as_nobody():
        one = the(run(None, open_folder / "project"), "project", "--project")
    assert "cannot be written to: Permission denied" in one.detail


def test_a_read_only_mount(tmp_path):
    place = str(tmp_path / "project")
    os.mkdir(place)
    mounts = [["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", place]]
    found = elsewhere({"project": tmp_path / "project"}, mounts=mounts)
    assert "Read-only file system" in the(found, "project", "--project").detail


def test_a_project_on_a_share_that_hangs(tmp_path):
    (tmp_path / "project").mkdir()
    found = elsewhere({"project": tmp_path / "project"}, hang=[str(tmp_path / "project")])
    assert "does not answer" in the(found, "project", "--project").detail


def test_a_session_that_has_lost_its_raw_folder_or_settings(tmp_path, project):
    (tmp_path / "raw" / "session1").rmdir()
    assert "is not there" in the(run(None, project), "project", "session").detail
    Layout(project).session_file.write_text('{"name": "a", "raw": "/", "worker": 2}')
    assert "unknown field `worker`" in the(run(None, project), "project", "session").detail


def write_journal(project: Path, times: list[float]) -> Path:
    path = Layout(project).journal("prep")
    journal = Journal(path, "prep", "session1")
    for number, at in enumerate(times):
        journal.commit([Draft(events.MovieSeen(movie=f"m{number}", path="p"), at)])
    journal.close()
    return path


def test_a_clock_that_was_set_back_while_a_session_ran(project):
    write_journal(project, [1000.0, 1001.0, 1000.5, 1010.0])
    sound = run(None, project)
    assert [one.subject for one in problems(sound) if one.check == "project"] == []
    assert any("4 events, every hash fits" in one.detail for one in sound)
    for path in Layout(project).journals.iterdir():
        path.unlink()
    write_journal(project, [5000.0, 1400.0, 1401.0])
    one = the(run(None, project), "clock", "journal prep")
    assert "set back by 3600 s" in one.detail


def test_a_damaged_journal(project):
    path = write_journal(project, [1.0, 2.0, 3.0])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE event SET body = x'00' WHERE seq = 2")
    db.close()
    assert "damaged at event 2" in the(run(None, project), "project", "journal prep").detail
    path.write_bytes(b"no database at all" * 100)
    assert "is damaged" in the(run(None, project), "project", "journal prep").detail


# The host


def test_a_full_disk(tmp_path):
    place = str(tmp_path / "project")
    os.mkdir(place)
    mounts = [["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]]
    found = elsewhere({"project": tmp_path / "project"}, mounts=mounts)
    assert the(found, "disk", "project").level == "warning"  # 2 MiB are too few for a session
    fill = [(f"{place}/ballast", 3 * 2**20)]
    full = elsewhere({"project": tmp_path / "project"}, mounts=mounts, fill=fill)
    assert the(full, "disk", "project").level == "error"


def test_a_disk_without_inodes(tmp_path):
    place = str(tmp_path / "project")
    os.mkdir(place)
    mounts = [["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=200", "tmpfs", place]]
    found = elsewhere({"project": tmp_path / "project"}, mounts=mounts, crowd=[(place, 300)])
    one = the(found, "inodes", "project")
    assert (one.level, "0 more files fit" in one.detail) == ("error", True)


def test_no_place_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    one = the(run(), "temp")
    assert (one.level, "No such file" in one.detail) == ("error", True)


def test_a_full_place_for_temporary_files(tmp_path, monkeypatch):
    place = str(tmp_path / "tmp")
    os.mkdir(place)
    monkeypatch.setenv("TMPDIR", place)
    mounts = [["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]]
    found = elsewhere({}, mounts=mounts, fill=[(f"{place}/x", 2**21 - 2**14)])
    assert the(found, "disk", "TMPDIR").level == "error"


@pytest.mark.parametrize(
    ("which", "soft", "subject", "level"),
    [
        (resource.RLIMIT_NOFILE, 256, "open files", "error"),
        (resource.RLIMIT_NOFILE, 2048, "open files", "warning"),
        (resource.RLIMIT_NPROC, 200, "processes", "warning"),
        (resource.RLIMIT_FSIZE, 2**30, "file size", "error"),
        (resource.RLIMIT_AS, 2**32, "memory", "warning"),
    ],
)
def test_low_limits(which, soft, subject, level):
    before = resource.getrlimit(which)
    resource.setrlimit(which, (soft, before[1]))
    try:
        found = list(machine.limits(None))  # type: ignore[arg-type]
    finally:
        resource.setrlimit(which, before)
    assert the(found, "limit", subject).level == level


def test_old_inotify_limits(tmp_path):
    folder = tmp_path / "sys" / "fs" / "inotify"
    folder.mkdir(parents=True)
    (folder / "max_user_watches").write_text("8192\n")
    (folder / "max_user_instances").write_text("16\n")
    found = run(proc=tmp_path)
    assert "sysctl fs.inotify.max_user_watches=524288" in (
        the(found, "inotify", "max_user_watches").remedy
    )
    assert the(found, "inotify", "max_user_instances").level == "warning"


def test_an_account_whose_inotify_instances_are_used_up(open_folder):
    if os.geteuid():
        pytest.skip("only root can use up another account's")
    found = elsewhere({}, user=NOBODY, instances=True)
    one = the(found, "inotify", "instance")
    assert "Too many open files" in one.detail


@pytest.mark.parametrize(
    ("text", "subject", "program"),
    [
        ('[defaults]\npipeline = "relion"', "relion", "relion_refine"),
        ('[defaults]\npicker = "topaz"', "topaz", "topaz"),
        ('[defaults]\npicker = "cryolo"', "cryolo", "cryolo_predict.py"),
        ('[defaults]\npipeline = "scipion"', "scipion", "scipion3"),
        ('[notify]\nmail = ["ops@site.org"]', "mail", "mail"),
        ('[notify]\ncommand = ["chat-tool", "--room"]', "notify.command", "chat-tool"),
    ],
)
def test_a_program_that_is_needed_and_absent(site, tmp_path, monkeypatch, text, subject, program):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    path = site(text)
    one = the(run(path), "program")
    assert (one.level, one.subject) == ("error", subject)
    assert f"{program} is not there" in one.detail
    planted = tmp_path / "bin" / program
    planted.write_text("#!/bin/true\n")
    assert the(run(path), "program").level == "error"  # there, and not executable
    planted.chmod(0o755)
    assert not [found for found in problems(run(path)) if found.check == "program"]


def test_programs_that_nobody_asked_for_are_no_problem(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not [one for one in problems(run()) if one.check == "program"]


def test_gpus_that_are_not_here(site):
    one = the(run(site("[cluster]\ngpus = 64")), "gpu")
    assert (one.level, "of 64 can be used" in one.detail) == ("error", True)


def test_a_scheduler_that_does_not_answer(site):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        path = site(f'[cluster]\nscheduler = "tcp://127.0.0.1:{port}"')
        assert not [one for one in problems(run(path)) if one.check == "cluster"]
    assert "does not answer: [Errno 111]" in the(run(path), "cluster").detail
    assert the(run(site('[cluster]\nscheduler = "tcp://h:99999"')), "cluster").level == "error"


def test_more_workers_than_cores(site):
    assert "1000, more than" in the(run(site("[cluster]\nworkers = 1000")), "cluster").detail


def test_a_clock_that_nothing_keeps_right(monkeypatch):
    assert machine.clock_state() in (None, 0, 1, 2, 3, 4, 5)
    monkeypatch.setattr(machine, "clock_state", lambda: 5)
    assert "chronyd" in the(run(), "clock", "time").remedy
    monkeypatch.setattr(machine, "clock_state", lambda: 0)
    assert not [one for one in problems(run()) if one.check == "clock"]


def test_a_clock_that_is_set_while_we_look(monkeypatch):
    real, readings = doctor.time.time, iter((0.0,))
    monkeypatch.setattr(doctor.time, "time", lambda: real() + next(readings, 3600.0))
    one = the(run(), "clock", "steps")
    assert "set by +3600.0 s" in one.detail


# The command


def test_the_command_prints_a_line_each_errors_first(site, tmp_path):
    app = typer.Typer()

    @app.command()
    def command(config: Path, as_json: bool = False) -> None:
        raise typer.Exit(doctor.doctor(config, None, as_json))

    path = str(site(f'[roots.a]\npath = "{tmp_path}/absent"'))
    shown = CliRunner().invoke(app, [path])
    assert shown.exit_code == 1
    lines = shown.output.splitlines()
    assert lines[0] == (
        f"error   root     roots.a {tmp_path}/absent is not there: mount it, or correct the path"
    )
    assert lines[-1].endswith("warnings")
    answer = json.loads(CliRunner().invoke(app, [path, "--as-json"]).output)
    assert answer["errors"] == 1
    assert len(answer["findings"]) == len(lines) - 1
    assert CliRunner().invoke(app, [str(site(""))]).exit_code == 0
