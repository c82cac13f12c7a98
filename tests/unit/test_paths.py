"""The layout of a project, and file systems that cannot hold a journal."""

import os
import stat
import subprocess

import pytest

from services.kit.errors import Misuse
from services.kit.paths import (
    Layout,
    atomic_write,
    file_system_of,
    refuse_network_file_system,
    remove_unfinished,
)

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
proc /proc proc rw 0 0
server:/export /data nfs4 rw 0 0
/dev/sdb1 /data/local xfs rw 0 0
//nas/share /mnt/my\\040share cifs rw 0 0
user@host:/x /mnt/krios-é fuse.sshfs rw 0 0
/dev/sdc1 /mnt/stick fuseblk rw 0 0
broken line
/dev/sdd1 /data2 ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me", ("/", "ext4")),
        ("/data", ("/data", "nfs4")),
        ("/data/session/P", ("/data", "nfs4")),
        ("/data/local/P", ("/data/local", "xfs")),
        ("/data2/P", ("/data2", "ext4")),
        ("/mnt/my share/P", ("/mnt/my share", "cifs")),
        ("/mnt/krios-é/P", ("/mnt/krios-é", "fuse.sshfs")),
    ],
)
def test_the_longest_mount_point_wins(tmp_path, path, expected):
    from pathlib import Path

    assert file_system_of(Path(path), MOUNTS) == expected


def test_a_later_mount_hides_an_earlier_one(tmp_path):
    mounts = f"a / ext4 rw 0 0\nb {tmp_path} ext4 rw 0 0\nc {tmp_path} nfs rw 0 0\n"
    assert file_system_of(tmp_path / "x", mounts) == (str(tmp_path), "nfs")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "beegfs", "gpfs"])
@pytest.mark.parametrize("prefix", ["", "fuse."])
def test_network_file_systems_are_refused(tmp_path, kind, prefix):
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path} {prefix}{kind} rw 0 0\n"
    with pytest.raises(Misuse, match=f"network file system.*{kind}.*local disk"):
        refuse_network_file_system(tmp_path / "P", mounts)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk"])
def test_local_file_systems_are_taken(tmp_path, kind):
    refuse_network_file_system(tmp_path, f"x / nfs rw 0 0\n/dev/x {tmp_path} {kind} rw 0 0\n")


def test_a_plain_fuse_mount_is_refused(tmp_path):
    with pytest.raises(Misuse, match="fuse"):
        refuse_network_file_system(tmp_path, f"x {tmp_path} fuse rw 0 0\n")


def test_a_symlink_to_a_share_is_the_share(tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts = f"x / ext4 rw 0 0\ny {tmp_path}/share nfs rw 0 0\n"
    with pytest.raises(Misuse):
        refuse_network_file_system(tmp_path / "link" / "P", mounts)


def test_the_layout_is_made_once_and_again(tmp_path):
    layout = Layout(tmp_path / "P")
    layout.make()
    layout.make()
    for folder in (layout.journals, layout.snapshots, layout.logs, layout.done, layout.tmp):
        assert folder.is_dir() and folder.is_relative_to(tmp_path / "P" / ".coldstream")
    assert layout.journal("prep") == layout.journals / "prep.sqlite"
    assert stat.S_IMODE(layout.sockets.stat().st_mode) == 0o700


def test_socket_paths_are_short_however_deep_the_project_is(tmp_path):
    deep = Layout(tmp_path.joinpath(*["a-long-folder-name"] * 12))
    other = Layout(tmp_path / "other")
    assert len(deep.desk("mdcatch").removeprefix("ipc://")) < 100
    assert deep.desk("prep") != other.desk("prep") != other.bell("prep")


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_socket_folder_that_others_can_write_is_refused(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    layout = Layout(tmp_path / "P")
    layout.make()
    layout.sockets.parent.chmod(mode)
    with pytest.raises(Misuse, match="yours alone"):
        layout.make()
    layout.sockets.parent.chmod(0o755)
    layout.make()


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    layout = Layout(tmp_path / "P")
    layout.sockets.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    layout.sockets.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misuse, match="yours alone"):
        layout.make()


def test_a_relative_project_does_not_move_with_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = Layout("P")
    monkeypatch.chdir("/")
    assert layout.project == tmp_path / "P" and os.path.isabs(layout.hidden)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    layout = Layout(tmp_path)
    job = tmp_path / "Extract" / "job006"
    job.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = job / f".particles.star.{gone.pid}-0123456789ab.tmp"
    alive = job / f".particles.star.{os.getppid()}-0123456789ab.tmp"
    foreign = job / ".something.tmp"
    for path in (left, alive, foreign, job / "particles.star"):
        path.write_text("")
    assert remove_unfinished(layout) == 1
    assert sorted(job.iterdir()) == sorted([alive, foreign, job / "particles.star"])
    atomic_write(job / "particles.star", "new")
    assert (job / "particles.star").read_text() == "new" and len(list(job.iterdir())) == 3
