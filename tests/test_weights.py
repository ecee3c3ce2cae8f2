"""Weight files: every way in which one can be wrong is said with the file, the key and the remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vita.errors import CheckpointError
from vita.speech.hift import fuse_weight_norm
from vita.weights import key_difference, load_strictly, read_weights


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, new_format):
    path, trace = tmp_path / "flow.pt", tmp_path / "it ran"
    torch.save({"w": torch.ones(2), "x": Bomb(trace)}, path, _use_new_zipfile_serialization=new_format)
    assert "code" in refused(path)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Bomb(trace)))
    refused(plain)
    assert not trace.exists()


def test_broken_files(tmp_path):
    assert "missing" in refused(tmp_path / "flow.pt")
    save_file({"w": torch.ones(400)}, tmp_path / "model.safetensors")
    torch.save({"w": torch.ones(400)}, tmp_path / "flow.pt")
    for path in (tmp_path / "model.safetensors", tmp_path / "flow.pt"):
        content = path.read_bytes()
        for cut in (0, 5, len(content) // 2):
            path.write_bytes(content[:cut])
            assert "download" in refused(path)
    torch.save([1, 2], tmp_path / "list.pt")
    assert "named tensors" in refused(tmp_path / "list.pt")


def test_wrapped_weights_are_unwrapped(tmp_path):
    torch.save({"state_dict": {"model": {"w": torch.ones(2)}}, "epoch": 3}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt")["w"].tolist() == [1.0, 1.0]


def test_keys_and_shapes_that_do_not_fit_are_named():
    module = nn.Linear(3, 2)
    weights = {"weight": torch.ones(2, 4), "scale": torch.ones(1), "notes": torch.ones(1)}
    with pytest.raises(CheckpointError) as caught:
        load_strictly(module, weights, "model.pt", unused=lambda key: key == "notes")
    message = str(caught.value)
    for part in ("model.pt", "Linear", "1 missing (bias)", "1 unexpected (scale)", "weight is 2x4, expected 2x3"):
        assert part in message
    assert "notes" not in message


def test_a_long_list_of_keys_is_cut_short():
    message = key_difference({f"layer.{i}": torch.ones(1) for i in range(300)}, {})
    assert "300 missing" in message
    assert "296 more" in message
    assert len(message) < 120


@pytest.mark.parametrize("spelling", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore")
def test_both_spellings_of_weight_norm_are_fused(spelling):
    for plain in (nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(3, 4, 5)):
        expected = plain(torch.ones(1, 3, 9)).detach()
        normed = spelling(plain)
        with torch.no_grad():
            fused = fuse_weight_norm({f"ups.0.{key}": tensor for key, tensor in normed.state_dict().items()})
        assert set(fused) == {"ups.0.weight", "ups.0.bias"}
        again = type(plain)(3, 4, 5)
        again.load_state_dict({key.removeprefix("ups.0."): tensor for key, tensor in fused.items()})
        torch.testing.assert_close(again(torch.ones(1, 3, 9)), expected)


def test_half_a_weight_norm_is_refused():
    with pytest.raises(CheckpointError, match="weight_g"):
        fuse_weight_norm({"conv_pre.weight_v": torch.ones(2, 2, 3)})
