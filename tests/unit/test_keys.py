"""CURVE keys on disk: private from the first byte, never replaced, for one reader."""

import json
import stat

import pytest
import zmq

from services.kit import keys
from services.kit.errors import Misuse


def test_a_pair_is_made_and_read_back(tmp_path):
    public, secret = keys.new_pair(tmp_path / "keys", "prep")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    known, own = keys.load(public), keys.load(secret)
    assert known.secret is None and own.secret is not None
    assert known.public == own.public == zmq.curve_public(own.secret.encode()).decode()
    assert own.secret not in public.read_text()


def test_a_key_is_never_replaced(tmp_path):
    _, secret = keys.new_pair(tmp_path, "prep")
    before = secret.read_bytes()
    with pytest.raises(Misuse, match="exists"):
        keys.new_pair(tmp_path, "prep")
    assert secret.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_that_others_can_reach_is_refused(tmp_path, mode):
    _, secret = keys.new_pair(tmp_path, "prep")
    secret.chmod(mode)
    with pytest.raises(Misuse, match="chmod 600"):
        keys.load(secret)


def test_a_key_that_was_typed_wrong_is_refused(tmp_path):
    public, _ = keys.new_pair(tmp_path, "prep")
    for bad in (keys.load(public).public[:-1], "\\" * 40, "é" * 40, "a" * 45):
        public.write_text(json.dumps({"name": "prep", "public": bad}))
        with pytest.raises(Misuse, match="not a public key"):
            keys.load(public)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"name":"a"}', b"\xff\xfe", b"{" * 5000])
def test_what_is_no_key_file_is_refused(tmp_path, content):
    path = tmp_path / "a.public"
    path.write_bytes(content)
    with pytest.raises(Misuse, match="not a usable key file"):
        keys.load(path)
    with pytest.raises(Misuse, match="not a usable key file"):
        keys.load(tmp_path / "absent")


def test_keys_are_needed_where_they_are_used(tmp_path):
    public, secret = keys.new_pair(tmp_path, "prep")
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        with pytest.raises(Misuse, match="no secret part"):
            keys.Security(keys.load(public)).apply(socket, serve=True)
        with pytest.raises(Misuse, match="server's public key"):
            keys.Security(keys.load(secret)).apply(socket, serve=False)


def test_one_gate_guards_one_context():
    with zmq.Context() as context, zmq.Context() as other:
        with keys.Gate(context, []) as gate:
            assert gate.guards(context) and not gate.guards(other)
            with pytest.raises(Misuse, match="gate already"):
                keys.Gate(context, [])
        assert not gate.guards(context)


def test_a_gate_ends_with_its_context():
    context = zmq.Context()
    gate = keys.Gate(context, [])
    context.term()
    gate.close()
    assert not gate.guards(context)


def test_a_key_that_is_none_cannot_be_let_in():
    with zmq.Context() as context:
        with pytest.raises(Misuse, match="not a public key"):
            keys.Gate(context, [keys.KeyFile("prep", "too short")])
