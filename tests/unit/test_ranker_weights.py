"""Weights files: what is read, what is refused, and that nothing in them is executed."""

import gzip
import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from algorithms.ranker import weights
from algorithms.ranker.architecture import Widths, checked
from algorithms.ranker.constants import RELION, Constants, constants_of
from algorithms.ranker.network import RankerNetwork
from algorithms.ranker.types import RankerError
from tests.ranker_data import CARD, formula_arrays

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.normal(0.0, 1.0, (9, 64, 64)).astype(np.float32)
VECTOR = RANDOM.normal(0.0, 1.0, (9, 24)).astype(np.float32)


def network(widths=None):
    torch.manual_seed(3)
    return RankerNetwork(widths).eval()


def by_torch(module, images=IMAGES, vector=VECTOR):
    with torch.no_grad():
        scores = module(torch.from_numpy(images)[:, None], torch.from_numpy(vector))
    return scores.numpy()


def checkpoint(module, **more):
    """Return the bytes of a checkpoint in RELION 5's layout."""
    content = io.BytesIO()
    held = {
        "model_state_dict": module.state_dict(),
        "model_definition": "import pathlib; pathlib.Path('executed').touch()",
        "P_DROPOUT": 0.3,
        "CNN_W": 16,
        "FEAT_EXT_W": 48,
        "N_EPOCHS": 200,
        "train_losses": [0.1, 0.05],
    }
    torch.save(held | more, content)
    return content.getvalue()


@pytest.mark.parametrize("widths", [Widths(), Widths(8, 32, 20, 24), Widths(16, 512, 128, 24)])
def test_numpy_and_torch_agree(widths):
    module = network(widths)
    arrays = module.arrays()
    assert checked(arrays, "here") == widths
    scores = weights.NumpyNetwork(arrays)(IMAGES, VECTOR)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_torch(module), atol=1e-5)
    # The size of the batch plays no role.
    one = [weights.NumpyNetwork(arrays)(IMAGES[i : i + 1], VECTOR[i : i + 1])[0] for i in range(9)]
    np.testing.assert_allclose(one, scores, atol=1e-6)
    assert len(weights.NumpyNetwork(arrays)(IMAGES[:0], VECTOR[:0])) == 0


def test_the_module_is_relions_network():
    module = network()
    assert sum(one.numel() for one in module.parameters()) == 589_003
    assert {
        name: tuple(one.shape) for name, one in module.state_dict().items()
    } == Widths().shapes()
    # Neither a sigmoid nor a limit at the end; an image and its mirror are not the same.
    assert by_torch(module, IMAGES * 500.0, VECTOR * 500.0).std() > 1.0
    assert not np.allclose(by_torch(module), by_torch(module, IMAGES.transpose(0, 2, 1).copy()))
    assert module(torch.zeros(2, 1, 64, 64), torch.zeros(2, 24), "images").shape == (2,)
    assert module(torch.zeros(2, 1, 64, 64), torch.zeros(2, 24), "features").shape == (2,)


def test_own_weights_come_back_with_constants_and_card(tmp_path):
    constants = constants_of(
        RANDOM.normal(2.0, 3.0, (50, 24)), zeroed=tuple(range(15, 21)), grey="job"
    )
    arrays = formula_arrays()
    path = tmp_path / "w.safetensors"
    weights.write(path, arrays, constants, CARD)
    read = weights.read(path)
    assert read.constants == constants and not read.constants.needs_opening
    assert read.card == CARD and read.source == str(path)
    np.testing.assert_array_equal(
        read.network(IMAGES, VECTOR), weights.NumpyNetwork(arrays)(IMAGES, VECTOR)
    )
    assert weights.dumps(arrays, constants, CARD) == path.read_bytes()


def test_a_checkpoint_of_relion_5_is_read_and_its_source_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = network(Widths(16, 512, 128, 24))
    for content in (checkpoint(module), gzip.compress(checkpoint(module), 1)):
        read = weights.loads(content, "v1.0.ckpt")
        assert read.constants is RELION
        np.testing.assert_allclose(read.network(IMAGES, VECTOR), by_torch(module), atol=1e-5)
    assert not (tmp_path / "executed").exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import pathlib

        return pathlib.Path.touch, (self.path,)


def test_a_pickle_that_does_something_is_refused_and_does_nothing(tmp_path):
    evil = Evil(tmp_path / "executed")
    content = io.BytesIO()
    torch.save({"model_state_dict": evil}, content)
    hidden = checkpoint(network(), model_definition=evil)
    legacy = io.BytesIO()
    torch.save({"model_state_dict": evil}, legacy, _use_new_zipfile_serialization=False)
    for bad in (content.getvalue(), hidden, legacy.getvalue(), pickle.dumps(evil)):
        with pytest.raises(RankerError, match=r"bad\.ckpt is no weights file .*safetensors"):
            weights.loads(bad, "bad.ckpt")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(evil))  # noqa: S301
    assert (tmp_path / "executed").exists()  # it would have


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_of_relion_4_is_asked_as_relion_asks_it():
    class Asked(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, images, features):
            return self.inner(images, features)[:, None]

    module = network()
    inputs = (torch.from_numpy(IMAGES[:2])[:, None], torch.from_numpy(VECTOR[:2]))
    script = torch.jit.trace(Asked(module), inputs)
    content = io.BytesIO()
    torch.jit.save(script, content)
    read = weights.loads(content.getvalue(), "default_model.pt")
    assert read.constants is RELION
    np.testing.assert_allclose(read.network(IMAGES, VECTOR), by_torch(module), atol=1e-5)

    other = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 1), torch.zeros(1, 3)), other)
    with pytest.raises(RankerError, match=r"cannot use .*other\.pt.*classranker_v1\.0\.ckpt"):
        weights.loads(other.getvalue(), "other.pt")


def test_torchscript_that_this_torch_refuses_is_told_with_the_way_out():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:  # as torch 1.0 wrote it
        file.writestr("model/version", "1\n")
        file.writestr("model/model.json", json.dumps({"protoVersion": "6"}))
    with pytest.raises(RankerError) as error:
        weights.loads(content.getvalue(), "class_ranker_0.1.3_torch_1.0.1.pt")
    for words in ("class_ranker_0.1.3", f"PyTorch ({torch.__version__})", "classranker_v1.0.ckpt"):
        assert words in str(error.value)


def shapes(**changes):
    """Return arrays of which some are replaced; None leaves one out."""
    arrays = formula_arrays()
    for name, values in changes.items():
        key = name.replace("__", ".")
        if values is None:
            del arrays[key]
        else:
            arrays[key] = values
    return arrays


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (shapes(cnn_layers__7__weight=None), "no parameter cnn_layers.7.weight"),
        (
            shapes(cnn_layers__0__weight=np.zeros((16, 3, 3, 3))),
            r"\(16, 3, 3, 3\).*\(16, 1, 3, 3\)",
        ),
        (shapes(cnn_layers__0__weight=np.zeros(4)), "wrong shape"),
        (shapes(feature_extractor__0__bias=np.zeros(7)), r"feature_extractor.0.bias .*\(7,\)"),
        (shapes(cnn_layers__3__bias=np.full(16, np.nan)), "not finite"),
    ],
)
def test_weights_of_another_shape_are_refused(arrays, words):
    with pytest.raises(RankerError, match=words):
        weights.dumps(arrays, RELION, CARD)


def test_a_checkpoint_for_other_features_is_refused():
    with pytest.raises(RankerError, match="18 features"):
        weights.loads(checkpoint(network(Widths(features=18))), "w.ckpt")


def test_heads_that_are_never_asked_may_be_left_out():
    arrays = {k: v for k, v in formula_arrays().items() if not k.startswith("classifier_images.")}
    read = weights.loads(weights.dumps(arrays, RELION, CARD), "w")
    assert read.network(IMAGES, VECTOR).shape == (9,)


def spoilt():
    """Yield what is no weights file, and what the message says."""
    good = weights.dumps(formula_arrays(), RELION, CARD)
    plain = {"a": np.zeros(3, np.float32)}
    yield b"", "no weights file"
    yield b"_rlnSelected", "no weights file"
    yield good[: len(good) // 2], "broken safetensors"
    yield good.replace(b"cnn_layers.7", b"cnn_layers.8"), "no parameter cnn_layers.7"
    yield save(plain), "no weights of the class ranker"
    yield save(plain, {weights.KIND: json.dumps({"architecture": "9"})}), "architecture '9'"
    yield save(plain, {weights.KIND: "x"}), "broken safetensors"
    yield gzip.compress(good)[:-20], "broken gzip"
    yield gzip.compress(bytes(weights.MAX_BYTES + 1), 1), "unpacks to more than"
    held = io.BytesIO()
    torch.save([torch.zeros(3)], held)
    yield held.getvalue(), "no model_state_dict"
    sparse = io.BytesIO()
    torch.save({"model_state_dict": {"cnn_layers.0.weight": torch.eye(3).to_sparse()}}, sparse)
    yield sparse.getvalue(), "no weights file|no parameter"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("readme.txt", "no weights")
    yield packed.getvalue(), "no weights file"


@pytest.mark.parametrize(("content", "words"), list(spoilt()))
def test_what_is_no_weights_file_is_refused(tmp_path, content, words):
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(RankerError, match=words) as error:
        weights.read(path)
    assert "given" in str(error.value)


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path):
    with pytest.raises(RankerError, match="cannot be read: No such file"):
        weights.read(tmp_path / "none")
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(weights.MAX_BYTES + 1)
    with pytest.raises(RankerError, match="larger than"):
        weights.read(path)


def test_a_card_that_is_not_complete_is_refused():
    with pytest.raises(RankerError, match="no metrics, limits"):
        card = {key: value for key, value in CARD.items() if key not in ("metrics", "limits")}
        weights.dumps(formula_arrays(), RELION, card)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": (0.0,) * 18}, "24 numbers"),
        ({"std": (0.0,) * 24}, "above 0"),
        ({"zeroed": (24,)}, "columns below 24"),
        ({"mode": "other"}, "mode 'other'"),
        ({"grey": "other"}, "grey 'other'"),
    ],
)
def test_constants_that_do_not_fit_are_refused(change, words):
    with pytest.raises(RankerError, match=words):
        replace(RELION, **change)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("[1]", "cannot be read"),
        (json.dumps({"features": ["Mean"]}), "other features"),
        (RELION.dumps().replace('"clip"', '"cut"'), "cannot be read"),
    ],
)
def test_constants_that_cannot_be_read_are_refused(text, words):
    with pytest.raises(RankerError, match=words):
        Constants.loads(text)


def test_robust_constants_hold_where_most_values_are_the_same():
    vectors = RANDOM.normal(0.0, 2.0, (400, 24))
    vectors[:, 9] = 0.0  # scattered signal: most classes have none
    vectors[:40, 9] = 0.5
    vectors[:, 10] = 0.25
    vectors[0, 5] = 1e6
    made = constants_of(vectors)
    assert made.clip == 5.0 and made.std[9] == pytest.approx(0.15) and made.std[10] == 1.0
    assert made.std[5] == pytest.approx(2.0, rel=0.15) and abs(made.mean[5]) < 0.3
