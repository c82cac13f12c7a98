"""particles.star grows by what is new, and readers never see half a table."""

import os

import numpy as np
import pytest

from algorithms.formats import star
from services.proc import particles
from services.proc.particles import LABELS, ParticlesFile

OPTICS = star.Table.of({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0]})


@pytest.fixture
def parts(tmp_path):
    found = []
    for index in range(6):
        columns = {label: np.full(3, float(index)) for label in LABELS}
        columns["rlnImageName"] = [f"{i}@m{index}.mrcs" for i in range(3)]
        table = star.Table.of(columns)
        star.save(tmp_path / f"m{index}_extract.star", {"images": table}, durable=False)
        found.append((f"key{index}", f"m{index}_extract.star"))
    return found


def names(path):
    return [name.partition("@")[2] for name in star.load(path)["particles"].strings("rlnImageName")]


def expected(*order):
    return [f"m{index}.mrcs" for index in order for _ in range(3)]


def test_what_stands_is_not_written_again(tmp_path, parts, monkeypatch):
    path = tmp_path / "job" / "particles.star"
    file = ParticlesFile(tmp_path, path)
    file.update(OPTICS, parts[:1])
    file.update(OPTICS, parts[:2])
    read = []
    rows = particles._rows
    monkeypatch.setattr(particles, "_rows", lambda part: read.append(part.name) or rows(part))

    def refuse(*_):
        raise AssertionError("the joined file is copied")

    monkeypatch.setattr("services.proc.particles.shutil.copyfile", refuse)
    for count in (3, 4, 5, 6):
        file.update(OPTICS, parts[:count])
        assert names(path) == expected(*range(count))
    # Each file's rows go into both of the two that take turns: twice, and no more.
    assert max(read.count(name) for name in read) <= 2
    assert len(read) <= 2 * 4 + 1
    stamp = path.stat().st_mtime_ns
    file.update(OPTICS, parts)
    assert path.stat().st_mtime_ns == stamp


def test_an_open_reader_keeps_a_whole_table(tmp_path, parts):
    path = tmp_path / "particles.star"
    file = ParticlesFile(tmp_path, path)
    file.update(OPTICS, parts[:2])
    for count in (3, 4, 5):
        with open(path) as reader:
            before = reader.read(10)
            file.update(OPTICS, parts[:count])
            rest = reader.read()
        assert len(star.loads(before + rest)["particles"]) == 3 * (count - 1)


def test_late_parts_stand_at_the_end_until_all_are_put_in_order(tmp_path, parts):
    path = tmp_path / "particles.star"
    file = ParticlesFile(tmp_path, path)
    file.update(OPTICS, [parts[0], parts[2]], in_order=False)
    file.update(OPTICS, parts[:3], in_order=False)
    assert names(path) == expected(0, 2, 1)
    file.update(OPTICS, parts[:4], in_order=False)
    assert names(path) == expected(0, 2, 1, 3)
    file.update(OPTICS, parts[:4])
    assert names(path) == expected(0, 1, 2, 3)
    file.update(OPTICS, [parts[0], *parts[2:4]], in_order=False)  # one is taken out
    assert names(path) == expected(0, 2, 3)


def test_other_optics_and_foreign_files_join_all_again(tmp_path, parts):
    path = tmp_path / "particles.star"
    file = ParticlesFile(tmp_path, path)
    file.update(OPTICS, parts[:2])
    other = star.Table.of({"rlnOpticsGroup": [1, 2], "rlnImagePixelSize": [2.0, 2.0]})
    file.update(other, parts[:3])
    assert len(star.load(path)["optics"]) == 2
    assert names(path) == expected(0, 1, 2)
    path.unlink()
    file.update(other, parts[:3])
    assert names(path) == expected(0, 1, 2)
    path.write_text("somebody else's")
    file.update(other, parts[:4])
    assert names(path) == expected(0, 1, 2, 3)


def test_a_file_system_without_hard_links(tmp_path, parts, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "particles.star"
    file = ParticlesFile(tmp_path, path)
    for count in range(1, 6):
        file.update(OPTICS, parts[:count])
        assert names(path) == expected(*range(count))
