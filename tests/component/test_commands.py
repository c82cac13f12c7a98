"""The inbox of commands: durable, in order, done once, also when it is killed."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from services.kit.commands import (
    MAX_ATTEMPTS,
    MAX_BYTES,
    POINTS,
    Command,
    Inbox,
    Mailbox,
    Reply,
    new_id,
)
from services.kit.errors import Code, Fatal, Misuse, Refused

# A daemon whose deeds are files, made so that doing a command again finds what was done. Every
# deed also adds a line to `deeds`: what was really done, and how often.
DAEMON = """
import sys, time
from pathlib import Path
from services.kit.commands import Inbox, Mailbox, Reply
from services.kit.faults import name_process

folder, effects = Path(sys.argv[1]), Path(sys.argv[2])
name_process("daemon")

def handle(command, attempt):
    target = effects / command.id
    time.sleep(float(command.arguments.get("takes_s", 0)))
    try:
        with open(target, "x") as file:
            file.write(command.id)
    except FileExistsError:
        return Reply("found it done")
    with open(effects / "deeds", "a") as file:
        file.write(command.id + "\\n")
    return Reply("did it", {"attempt": attempt})

with Inbox(Mailbox(folder), handle) as inbox:
    print("ready", flush=True)
    while True:
        inbox.turn()
        time.sleep(0.002)
"""
SENDER = """
import sys
from pathlib import Path
from services.kit.commands import Command, Mailbox

box = Mailbox(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    facts = {"takes_s": 0.01}
    box.send(Command(id=f"c{number}", kind="do.it", arguments=facts, sent_at=float(number)))
    print(f"c{number}", flush=True)
"""


def command(command_id="a", kind="do.it", **arguments):
    return Command(id=command_id, kind=kind, arguments=arguments, sent_at=time.time())


@pytest.fixture
def box(tmp_path):
    return Mailbox(tmp_path / "state" / "commands")


def answering(*texts):
    """Return a handler that gives these texts in turn, and the list of what it was asked."""
    asked, left = [], list(texts)

    def handle(command, attempt):
        asked.append((command.id, attempt))
        return Reply(left.pop(0), {"arguments": command.arguments})

    return handle, asked


def test_a_command_is_done_once_and_its_answer_stays(box):
    handle, asked = answering("first", "second")
    box.send(command("a", x=1))
    assert box.waiting() == ["a"] and box.answer("a") is None
    with Inbox(box, handle) as inbox:
        (answer,) = inbox.turn()
        assert (answer.done, answer.text, answer.facts) == (True, "first", {"arguments": {"x": 1}})
        box.send(command("a", x=2))  # again, even with other arguments
        assert inbox.turn() == [] and box.waiting() == []
    assert asked == [("a", 1)]
    assert box.answer("a") == answer
    assert box.wait("a", 0.0) == answer
    exchange = box.exchange("a")
    assert exchange is not None and exchange.command is not None
    assert exchange.command.arguments == {"x": 1}
    assert [path.name for path in box.begun.iterdir()] == []
    assert [path.name for path in box.tmp.iterdir()] == []


def test_commands_are_done_in_the_order_of_sending(box):
    for number in (3, 1, 2):
        box.send(Command(id=f"c{number}", kind="do.it", sent_at=float(number)))
    handle, asked = answering("x", "y", "z")
    with Inbox(box, handle) as inbox:
        inbox.turn()
    assert [command_id for command_id, _ in asked] == ["c1", "c2", "c3"]
    assert [one.answer.id for one in box.exchanges()] == ["c1", "c2", "c3"]


def test_a_refusal_is_an_answer(box):
    def handle(command, attempt):
        if command.kind == "a":
            raise Misuse("no such folder")
        raise Refused(Code.TRUNCATED, "half a file")

    box.send(command("1", "a"))
    box.send(command("2", "b"))
    with Inbox(box, handle) as inbox:
        inbox.turn()
    first, second = box.answer("1"), box.answer("2")
    assert first is not None and (first.done, first.text) == (False, "no such folder")
    assert second is not None and second.text == "TRUNCATED: half a file"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"id": "other", "kind": "x"}', b"\xff\xfe", b"{" * 1000]
)
def test_what_is_no_command_is_answered_and_taken_out(box, content):
    (box.new / "odd.json").write_bytes(content)
    (box.new / "not an id.json").write_bytes(content)
    handle, asked = answering()
    with Inbox(box, handle) as inbox:
        (answer,) = inbox.turn()
    assert not answer.done and "no command of this version" in answer.text
    assert asked == [] and box.waiting() == []
    exchange = box.exchange("odd")
    assert exchange is not None and exchange.command is None


@pytest.mark.parametrize("wrong", ["", ".", "..", "-x", "a/b", "../../x", "a b", "x" * 65, "a\n"])
def test_an_id_cannot_be_a_path(box, wrong):
    with pytest.raises(Misuse, match="command id"):
        box.send(command(wrong))
    with pytest.raises(Misuse, match="command id"):
        box.answer(wrong)


def test_what_cannot_be_written_down_is_refused_at_once(box):
    with pytest.raises(Misuse, match="command do"):
        box.send(command("a", x=object()))
    with pytest.raises(Misuse, match="bytes are more than"):
        box.send(command("a", x="y" * MAX_BYTES))
    assert box.waiting() == [] and list(box.tmp.iterdir()) == []


def test_a_full_disk_is_told_to_the_sender(box, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        box.send(command("a"))
    monkeypatch.undo()
    assert box.waiting() == [] and list(box.tmp.iterdir()) == []


def test_the_folder_is_ours_alone(tmp_path):
    folder = tmp_path / "commands"
    box = Mailbox(folder)
    box.send(command("a"))
    for path in (folder, box.new, box.done, box.begun, box.tmp):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((box.new / "a.json").stat().st_mode) == 0o600
    folder.chmod(0o750)
    with pytest.raises(Misuse, match="chmod 700"):
        Mailbox(folder)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Misuse, match="nobody else"):
        Mailbox(tmp_path / "link")


def test_there_is_one_daemon_and_clients_see_it(box, monkeypatch):
    monkeypatch.setattr("services.kit.commands.LOCK_PATIENCE_S", 0.05)
    handle, _ = answering()
    assert box.served_by() is None
    with Inbox(box, handle):
        assert box.served_by() == os.getpid()
        with pytest.raises(Misuse, match=f"process {os.getpid()}"), Inbox(box, handle):
            pass
    assert box.served_by() is None
    with Inbox(box, handle):
        assert box.served_by() == os.getpid()


def test_a_command_that_ends_the_daemon_is_given_up(box):
    def handle(command, attempt):
        raise Fatal("out of memory")

    box.send(command("bad"))
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Fatal), Inbox(box, handle) as inbox:
            inbox.turn()
        assert box.is_begun("bad")
    box.send(command("good"))
    fine, asked = answering("fine")
    with Inbox(box, fine) as inbox:
        inbox.turn()
    bad, good = box.answer("bad"), box.answer("good")
    assert bad is not None and "ended the daemon 5 times" in bad.text and not bad.done
    assert good is not None and good.done and asked == [("good", 1)]


def test_a_command_can_be_forgotten_before_it_is_answered(box):
    def interrupted(command, attempt):
        raise KeyboardInterrupt

    box.send(command("a"))
    with Inbox(box, interrupted) as inbox:
        with pytest.raises(KeyboardInterrupt):
            inbox.turn()
        inbox.forget("a")
        inbox.forget("never-there")
        assert inbox.turn() == []
    assert box.waiting() == [] and box.answer("a") is None and not box.is_begun("a")


def test_a_damaged_answer_is_not_done_again(box):
    handle, asked = answering("first")
    box.send(command("a"))
    with Inbox(box, handle) as inbox:
        inbox.turn()
    path = box.done / "a.json"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Fatal, match="damaged"):
        box.send(command("a"))
    assert len(asked) == 1


def test_answers_of_a_newer_version_are_read(box):
    found = {"id": "a", "done": True, "text": "t", "at": 1.0, "more": 1}
    (box.done / "a.json").write_text(json.dumps({"command": None, "answer": found, "more": 2}))
    answer = box.answer("a")
    assert answer is not None and answer.text == "t"


def test_stale_leftovers_are_swept_and_fresh_ones_kept(box):
    old, fresh = box.tmp / "old", box.tmp / "fresh"
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (0, 0))
    handle, _ = answering()
    with Inbox(box, handle):
        assert sorted(path.name for path in box.tmp.iterdir()) == ["fresh"]


def test_ids_are_unique_and_sort_by_time():
    ids = [new_id(at) for at in (1.0, 2.0, 1e9, 1e10)]
    assert ids == sorted(ids) and len({new_id(1.0) for _ in range(1000)}) == 1000


# Killed


def start(program, *arguments, crashes=None):
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    if crashes is not None:
        variables["COLDSTREAM_CRASH_DIR"] = str(crashes)
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process):
    process.kill()
    process.communicate()


def deeds(effects):
    path = effects / "deeds"
    return sorted(path.read_text().split()) if path.exists() else []


def test_killed_at_each_named_point(box, tmp_path):
    effects, crashes = tmp_path / "effects", tmp_path / "crashes"
    effects.mkdir()
    crashes.mkdir()
    for number, point in enumerate(POINTS):
        (crashes / f"daemon.{point}").touch()
        box.send(command(f"c{number}"))
        for _ in range(2):  # it dies once, and is started again
            daemon = start(DAEMON, box.folder, effects, crashes=crashes)
            try:
                deadline = time.monotonic() + 20.0
                while daemon.poll() is None and time.monotonic() < deadline:
                    if not list(crashes.iterdir()) and not box.waiting():
                        break
                    time.sleep(0.02)
                assert daemon.returncode in (None, -signal.SIGKILL)
            finally:
                end(daemon)
        answer = box.wait(f"c{number}", 20.0)
        assert answer is not None and answer.done
        assert answer.text == ("found it done" if point == "command-done" else "did it")
        assert list(crashes.iterdir()) == [], f"{point} was never passed"
    assert deeds(effects) == ["c0", "c1", "c2"]


def test_kill_loop_of_daemon_and_sender(box, tmp_path):
    """Twenty-five kills at random times; every command that was taken has one deed, one answer."""
    chance, total, effects = random.Random(4), 400, tmp_path / "effects"
    effects.mkdir()
    sent, first, kills = 0, {}, 0
    deadline = time.monotonic() + 120
    while sent < total or box.waiting():
        assert time.monotonic() < deadline
        daemon = start(DAEMON, box.folder, effects)
        sender = start(SENDER, box.folder, max(0, sent - 3), total)  # repeats some ids
        assert daemon.stdout is not None and daemon.stdout.readline() == "ready\n"
        begun, patience_s = time.monotonic(), chance.uniform(0.02, 0.25) if kills < 25 else 5.0
        while time.monotonic() - begun < patience_s and (sender.poll() is None or box.waiting()):
            time.sleep(0.01)
        end_at = [daemon, sender]
        chance.shuffle(end_at)
        for process in end_at:
            process.kill()
        acknowledged = sender.communicate()[0].split()
        daemon.communicate()
        kills += 1
        sent = max([sent, *(int(one[1:]) + 1 for one in acknowledged)])
        for one in box.exchanges():
            assert first.setdefault(one.answer.id, one.answer) == one.answer
    assert kills >= 15
    names = sorted(f"c{number}" for number in range(total))
    assert sorted(first) == names and all(answer.done for answer in first.values())
    # The deed and its line are two steps of this handler: a kill may lose a line, never double it.
    done = deeds(effects)
    assert len(done) == len(set(done)) and len(done) >= total - kills
    assert sorted(path.name for path in effects.iterdir() if path.name != "deeds") == names


def test_a_sender_killed_in_the_middle_leaves_whole_commands_only(box, tmp_path):
    chance, sent = random.Random(7), 0
    for _ in range(15):
        sender = start(SENDER, box.folder, sent, 100_000)
        assert sender.stdout is not None and sender.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.1))
        sender.kill()
        acknowledged = sender.communicate()[0].split()
        sent = max([sent, *(int(one[1:]) + 1 for one in acknowledged)])
    waiting = box.waiting()
    assert {f"c{number}" for number in range(1, sent)} <= set(waiting)
    assert all(box.command(command_id) is not None for command_id in waiting)


def test_files_are_json_that_people_can_read(box):
    box.send(command("a", kind="session.open", raw="/data/x"))
    text = (box.new / "a.json").read_text()
    assert '\n  "kind": "session.open"' in text
    assert msgspec.json.decode(text)["arguments"] == {"raw": "/data/x"}
