"""Errors: who has to act, and codes that every refusal is one of."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from services.kit import errors, faults
from services.kit.errors import Code, Refused


def test_a_refusal_says_code_and_detail():
    refused = Refused(Code.TRUNCATED, "m.tiff ends after 10 of 20 frames: copy it again")
    assert str(refused) == "TRUNCATED: m.tiff ends after 10 of 20 frames: copy it again"
    again = pickle.loads(pickle.dumps(refused))  # noqa: S301
    assert (again.code, again.detail) == (refused.code, refused.detail)


def test_a_code_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="NO_SUCH_CODE"):
        Refused("NO_SUCH_CODE", "detail")  # pyright: ignore[reportArgumentType]


def test_each_kind_is_one_of_ours_and_no_other():
    kinds = (errors.Refused, errors.Transient, errors.Fatal, errors.Misuse, errors.Bug)
    for kind in kinds:
        assert issubclass(kind, errors.ColdstreamError)
        assert not any(issubclass(kind, other) for other in kinds if other is not kind)


def test_a_crash_point_kills_once_and_only_the_process_it_names(tmp_path):
    (tmp_path / "worker.before-render").touch()
    code = (
        "from services.kit.faults import crash_point, name_process\n"
        "name_process('prep'); crash_point('before-render')\n"
        "name_process('worker'); crash_point('after-render'); print('alive', flush=True)\n"
        "crash_point('before-render'); print('not reached')\n"
    )
    environment = {**os.environ, "COLDSTREAM_CRASH_DIR": str(tmp_path)}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )

    first, second = run(), run()
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "alive\n")
    assert (second.returncode, second.stdout) == (0, "alive\nnot reached\n")
    assert "before-render" in faults.POINTS
