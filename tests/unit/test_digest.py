"""The digest of a file: of its content's ends and size, not of its name or inode."""

import os
import shutil

from services.kit.digest import ENDS, file_digest


def write(path, size, change_at=None):
    data = bytearray(i % 251 for i in range(size))
    if change_at is not None:
        data[change_at] ^= 1
    path.write_bytes(bytes(data))
    return path


def test_a_copy_has_the_same_digest_and_every_end_counts(tmp_path):
    for size in (1, 1000, ENDS, ENDS + 1, 2 * ENDS - 1, 2 * ENDS, 3 * ENDS):
        original = write(tmp_path / "a.tiff", size)
        digest = file_digest(original)
        copied = shutil.copyfile(original, tmp_path / f"b{size}.tiff")
        assert file_digest(copied) == digest and len(digest) == 64
        for place in {0, size // 4, size - 1} if size <= 2 * ENDS else {0, ENDS - 1, size - ENDS}:
            assert file_digest(write(tmp_path / f"c{size}.{place}", size, place)) != digest


def test_sizes_differ_even_where_the_ends_agree(tmp_path):
    for size in (4 * ENDS, 5 * ENDS):
        (tmp_path / str(size)).write_bytes(bytes(size))
    assert file_digest(tmp_path / str(4 * ENDS)) != file_digest(tmp_path / str(5 * ENDS))


def test_a_replaced_file_gets_a_new_digest(tmp_path):
    path = write(tmp_path / "gain.mrc", 1000)
    first = file_digest(path)
    write(path, 1000, 5)
    os.utime(path, ns=(1, 1))  # whatever the clock of the file server says
    assert file_digest(path) != first
    write(path, 1000)
    os.utime(path, ns=(2, 2))
    assert file_digest(path) == first


def test_what_cannot_be_read_is_missing(tmp_path):
    assert file_digest(tmp_path / "absent") == "missing"
    assert file_digest(tmp_path) == "missing", "a folder is no file"
