"""The units are valid and tight, and the services live inside of what they allow."""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.kit import events
from services.kit import session as sessions
from services.kit.journal import Reader
from services.kit.paths import Layout
from services.kit.session import Session
from tests.unit.test_docs import ROOT

FOLDER = ROOT / "systemd"
UNITS = sorted(path.name for path in FOLDER.glob("*.service"))
HARDENED = [name for name in UNITS if "alert" not in name]
NOTIFYING = (
    "coldstream-mdcatch@",
    "coldstream-prep@",
    "coldstream-proc@",
    "coldstream-ranker@",
    "coldstream-refine@",
    "coldstream-serve.",
)
# What `systemd-analyze security` may come to: 0 is shut, 10 is open.
EXPOSURE = {"coldstream-mdcatch@.service": 1.0}


@pytest.fixture
def analyze():
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("there is no systemd-analyze here")
    return found


def settings(name: str) -> dict[str, list[str]]:
    """Return the values of each key of a unit."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def installed(folder: Path) -> None:
    """Copy the units, with this installation in place of /opt/coldstream."""
    for path in (*FOLDER.glob("*.service"), *FOLDER.glob("*.target")):
        text = path.read_text().replace(
            "/opt/coldstream/.venv/bin", str(Path(sys.executable).parent)
        )
        (folder / path.name).write_text(text)


@pytest.mark.parametrize("name", [*UNITS, "coldstream-session@.target"])
def test_systemd_finds_nothing_wrong(tmp_path, analyze, name):
    if not (Path(sys.executable).parent / "coldstream").exists():
        pytest.skip("the commands are not installed beside this Python")
    installed(tmp_path)
    done = subprocess.run(
        [analyze, "verify", name.replace("@.", "@session.")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", HARDENED)
def test_exposure_is_low(tmp_path, analyze, name):
    installed(tmp_path)
    done = subprocess.run(
        [analyze, "security", "--offline=true", str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze cannot look at files")
    level = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= EXPOSURE.get(name, 1.7)


def test_units_shut_the_same_doors():
    wanted = [
        line
        for line in (FOLDER / "coldstream-mdcatch@.service").read_text().splitlines()
        if re.match(
            r"(Protect|Restrict(SUID|Real|Name)|NoNew|PrivateT|PrivateM|System|Cap|Lim)", line
        )
    ]
    assert len(wanted) > 18
    for name in HARDENED:
        text = (FOLDER / name).read_text()
        assert [line for line in wanted if line not in text] == [], name


def test_services_are_watched_and_restarted():
    for name in HARDENED:
        unit = settings(name)
        assert unit["Restart"] == ["on-failure"], name
        assert unit["RestartPreventExitStatus"] == ["2"]
        assert unit["OnFailure"] == ["coldstream-alert@%n.service"]
        assert unit["User"] == ["coldstream"]
        if name.startswith(NOTIFYING):
            assert unit["Type"] == ["notify"]
            assert int(unit["WatchdogSec"][0]) >= 30
        assert ("WatchdogSec" in unit) == name.startswith(NOTIFYING)


def test_the_target_holds_every_service_of_a_session():
    wanted = " ".join(settings("coldstream-session@.target")["Wants"]).split()
    of_session = [name for name in HARDENED if "-" in name and "@" in name]
    assert sorted(wanted) == [name.replace("@.", "@%i.") for name in of_session]
    for name in of_session:
        assert settings(name)["PartOf"] == ["coldstream-session@%i.target"]


def test_modules_and_paths_exist():
    folders = (FOLDER / "tmpfiles.conf").read_text()
    for name in HARDENED:
        (start,) = settings(name)["ExecStart"]
        module = re.search(r"-m ([\w.]+)", start)
        if module is not None:
            path = ROOT / module[1].replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), start
        else:
            assert start.startswith("/opt/coldstream/.venv/bin/coldstream ")
        for path in " ".join(settings(name).get("ReadWritePaths", [])).split():
            assert path.split("/%i")[0] in folders
    assert "u coldstream" in (FOLDER / "sysusers.conf").read_text()


# Inside

SANDBOX = """
import ctypes, os, struct, sys
allowed = [int(number) for number in sys.argv[1].split(",")]
library = ctypes.CDLL(None, use_errno=True)
def prctl(*arguments):
    if library.prctl(*arguments):
        sys.exit(77)
prctl(38, 1, 0, 0, 0)                    # NoNewPrivileges
if sys.argv[2] == "1":
    library.prctl(65, 1, 0, 0, 0)        # MemoryDenyWriteExecute, where the kernel has it
for capability in range(41):
    library.prctl(24, capability, 0, 0, 0)   # CapabilityBoundingSet=
rules = [(0x20, 0, 0, 4), (0x15, 1, 0, 0xC000003E), (0x06, 0, 0, 0x00050001), (0x20, 0, 0, 0)]
for number in allowed:
    rules += [(0x15, 0, 1, number), (0x06, 0, 0, 0x7FFF0000)]
rules.append((0x06, 0, 0, 0x00050001))   # all others: EPERM
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
buffer = ctypes.create_string_buffer(code)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(buffer))
prctl(22, 2, ctypes.byref(program), 0, 0)
os.execv(sys.argv[3], sys.argv[3:])
"""
# Kernel numbers of the calls that systemd's groups name (x86-64).
UNISTD = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


# Without a network of one's own, where that is allowed.
ALONE = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []


def system_calls(analyze: str, groups: str) -> set[str]:
    """Return the names in systemd's groups, those of groups inside them too."""
    done = subprocess.run(
        [analyze, "syscall-filter", *groups.split()], capture_output=True, text=True, timeout=60
    )
    words = re.findall(r"^ +(@?[a-z]\S*)$", done.stdout, flags=re.MULTILINE)
    inner = {word for word in words if word.startswith("@")}
    found = {word for word in words if not word.startswith("@")}
    return found | (system_calls(analyze, " ".join(inner)) if inner else set())


def wait_for(told: list[str], server: socket.socket, word: str, limit_s: float = 60.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and not any(word in one for one in told):
        try:
            told.append(server.recv(4096).decode())
        except TimeoutError:
            continue
    return any(word in one for one in told)


def filter_of(analyze: str, name: str) -> str:
    """Return the numbers of the system calls that a unit allows, with commas."""
    if platform.machine() != "x86_64" or not UNISTD.exists():
        pytest.skip("the numbers of system calls are not known here")
    allow, deny = settings(name)["SystemCallFilter"]
    names = system_calls(analyze, allow) - system_calls(analyze, deny.removeprefix("~"))
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", UNISTD.read_text()))
    found = [numbers[name] for name in sorted(names) if name in numbers]
    assert len(found) > 200
    assert numbers["mount"] not in found
    assert numbers["chown"] not in found
    return ",".join(found)


def simulated(tmp_path: Path) -> Path:
    from services.demo import simulate

    raw = tmp_path / "Supervisor_test"
    simulate(raw, "tiny", 1, realtime=False)
    return raw


def test_the_watcher_works_behind_its_filter_and_without_a_network(tmp_path, analyze):
    """Settle a movie with the unit's system calls, no capability and no network."""
    calls = filter_of(analyze, "coldstream-mdcatch@.service")
    raw, layout = simulated(tmp_path), Layout(tmp_path / "project")
    layout.make()
    sessions.save(layout, Session(name=raw.name, raw=str(raw), settle_s=0.2))
    command = [sys.executable, "-m", "mdcatch", "--project", str(layout.project)]
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(0.5)
        process = subprocess.Popen(
            [*ALONE, sys.executable, "-c", SANDBOX, calls, "1", *command],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            alive = wait_for(told, server, "READY=1") and wait_for(told, server, "WATCHDOG=1")
            status = Path(f"/proc/{process.pid}/status").read_text() if alive else ""
            settled = alive and _settles(layout)
        finally:
            process.terminate()
            output = process.communicate(timeout=30)[0].decode()
    if process.returncode == 77:
        pytest.skip("system call filters are not allowed here")
    assert alive, output
    for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"):
        assert line in status
    assert settled, output
    assert process.returncode == 0, output


@pytest.mark.slow
def test_a_whole_session_works_behind_the_filter(tmp_path, analyze):
    """From movie to particles with the system calls that the units of prep and proc allow."""
    calls = filter_of(analyze, "coldstream-prep@.service")
    command = [sys.executable, "-m", "services", "process", str(simulated(tmp_path))]
    command += ["--project", str(tmp_path / "project"), "--particle-diameter", "250"]
    done = subprocess.run(
        [sys.executable, "-c", SANDBOX, calls, "0", *command, "--workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    if done.returncode == 77:
        pytest.skip("system call filters are not allowed here")
    assert done.returncode == 0, done.stdout + done.stderr


def _settles(layout: Layout) -> bool:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        reader = Reader(layout.journal("mdcatch"))
        try:
            if any(isinstance(event.body, events.MovieSettled) for event in reader.read()):
                return True
        finally:
            reader.close()
        time.sleep(0.2)
    return False
