"""A task on a worker: computed once, published whole, refused with a code, adopted when found."""

import errno
from pathlib import Path

import msgspec
import pytest

from services.kit import work
from services.kit.errors import Code
from services.kit.paths import Layout
from services.kit.work import Manifest, Reply, Task, adopt, content_key, execute, manifest_path
from tests import tasks


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    # The tasks here need no torch; setting up a worker for real is tested with the runner.
    monkeypatch.setattr(work, "_ready", True)
    made = Layout(tmp_path / "P")
    made.make()
    return made


def run(layout: Layout, task: Task, token: int = 1) -> Reply:
    encoded = execute(str(layout.project), msgspec.msgpack.encode(task), token)
    return msgspec.msgpack.decode(encoded, type=Reply)


def test_a_task_is_published_with_its_manifest_last(layout):
    task = tasks.task("write", "m1", number=7)
    reply = run(layout, task)
    assert reply.result == msgspec.msgpack.encode(49) and not reply.adopted and not reply.code
    assert (layout.project / "Job/job001/m1.txt").read_text() == "49"
    manifest = adopt(layout, task.stage, task.key)
    assert manifest == Manifest(
        task.key, "square", "m1", msgspec.msgpack.encode(49), {"Job/job001/m1.txt": 2}, reply.took_s
    )
    assert list(layout.tmp.iterdir()) == []


def test_a_finished_task_is_adopted_and_not_computed_again(layout):
    task = tasks.task("write", "m1", number=7)
    first = run(layout, task)
    assert tasks.computed(layout.project) == 1
    again = run(layout, task, token=2)
    assert again.adopted and again.result == first.result and tasks.computed(layout.project) == 1
    assert run(layout, tasks.task("write", "m1", number=8)).result == msgspec.msgpack.encode(64)
    assert tasks.computed(layout.project) == 2


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "manifest", "no manifest"])
def test_what_is_not_whole_is_computed_again(layout, damage):
    task = tasks.task("write", "m1", number=7)
    run(layout, task)
    product = layout.project / "Job/job001/m1.txt"
    manifest = manifest_path(layout, task.stage, task.key)
    match damage:
        case "missing":
            product.unlink()
        case "shorter":
            product.write_text("4")
        case "longer":
            product.write_text("490")
        case "manifest":
            manifest.write_bytes(manifest.read_bytes()[:-3])
        case "no manifest":
            manifest.unlink()
    assert adopt(layout, task.stage, task.key) is None
    assert not run(layout, task, token=2).adopted
    assert product.read_text() == "49" and adopt(layout, task.stage, task.key) is not None
    assert tasks.computed(layout.project) == 2


def test_a_refusal_is_an_answer_and_leaves_nothing(layout):
    task = tasks.task("refuse", "m1")
    reply = run(layout, task)
    assert (reply.result, reply.code) == (None, Code.TOO_FEW_FRAMES)
    assert "m1 has 1 frame" in reply.detail
    assert adopt(layout, task.stage, task.key) is None and list(layout.tmp.iterdir()) == []


def test_a_movie_that_cannot_be_read_is_refused_with_its_file(layout):
    reply = run(layout, tasks.task("read_absent", "m1"))
    assert reply.code == Code.READ_ERROR and "m1" in reply.detail and "absent.mrc" in reply.detail


@pytest.mark.parametrize("number", work.SURROUNDINGS)
def test_a_machine_without_room_is_not_the_movies_fault(layout, number):
    with pytest.raises(OSError) as caught:
        run(layout, tasks.task("os_error", "m1", number=number))
    assert caught.value.errno == number and errno.errorcode[number]
    assert list(layout.tmp.iterdir()) == [], "the private folder is removed whatever happens"


def test_a_bug_in_a_task_is_raised(layout):
    with pytest.raises(ZeroDivisionError):
        run(layout, tasks.task("broken", "m1"))
    assert list(layout.tmp.iterdir()) == []


def test_what_an_earlier_attempt_left_is_not_used(layout):
    task = tasks.task("write", "m1", number=7)
    left = layout.tmp / f"{task.key}.3"
    left.mkdir()
    (left / "out.txt").write_text("half a resul")
    assert run(layout, task, token=3).result == msgspec.msgpack.encode(49)
    assert (layout.project / "Job/job001/m1.txt").read_text() == "49"


def test_a_promised_file_that_is_not_there_publishes_no_manifest(layout):
    task = tasks.task("promise", "m1")
    assert run(layout, task).code == Code.READ_ERROR
    assert adopt(layout, task.stage, task.key) is None


def test_sweep_removes_what_killed_workers_left(layout):
    for name in ("a.1", "b.2"):
        (layout.tmp / name).mkdir()
        (layout.tmp / name / "half.mrc").write_bytes(b"x")
    assert work.sweep(layout) == 2 and list(layout.tmp.iterdir()) == []
    assert work.sweep(layout) == 0


def test_the_key_is_of_stage_code_and_every_part(monkeypatch):
    key = content_key("motioncorr", b"request", "digest")
    assert len(key) == 64 and key == content_key("motioncorr", "request", b"digest")
    others = {
        content_key("ctffind", b"request", "digest"),
        content_key("motioncorr", b"request", "digesu"),
        content_key("motioncorr", b"requestd", "igest"),
        content_key("motioncorr", b"request"),
        content_key("motioncorr", b"requestdigest"),
    }
    monkeypatch.setattr(work, "CODE_VERSION", "another")
    others.add(content_key("motioncorr", b"request", "digest"))
    assert key not in others and len(others) == 6


def test_manifests_are_spread_over_folders(layout):
    path = manifest_path(layout, "ctffind", "abcdef")
    assert path.relative_to(layout.done) == Path("ctffind/ab/abcdef.msgpack")
