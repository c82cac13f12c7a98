import sys

import pytest

from schemer.errors import SchemeError
from schemer.executors import JobRequest
from schemer.executors.native import LABELS, NativeExecutor
from services.jobs.main import JOBS


def request(label):
    return JobRequest(process="Folder/job007/", label=label, options={})


def test_each_type_that_it_takes_is_one_that_the_program_does():
    assert set(LABELS) == set(JOBS)


@pytest.mark.parametrize("label", LABELS)
def test_the_program_gets_the_job_folder(label):
    (command,) = NativeExecutor().commands(request(label))
    assert command[0] == sys.executable
    assert command[-2:] == ["services.jobs", "Folder/job007/"]


@pytest.mark.parametrize(
    "label",
    [
        "relion.class3d.helical",
        "relion.refine3d.helical",
        "relion.select.interactive",
        "relion.autopick.topaz.train",
        "relion.autopick.ref2d",
        "relion.extract.helical",
        "relion.motioncorr.motioncor2",
        "relion.localres.resmap",
    ],
)
def test_another_type_is_refused_with_the_executors_that_do_it(label):
    with pytest.raises(SchemeError) as error:
        NativeExecutor().commands(request(label))
    for words in ("Folder/job007/", label, "executor relion", "command:PROGRAM"):
        assert words in str(error.value)


def test_an_external_job_has_a_program_of_its_own():
    with pytest.raises(SchemeError, match=r"relion\.external\.ranker .*fn_exe.* executor relion$"):
        NativeExecutor().commands(request("relion.external.ranker"))
