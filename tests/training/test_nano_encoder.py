"""nano's audio encoder: what a frame may depend on."""

import pytest
import torch

from vita.model.nano_audio_encoder import SUBSAMPLING, NanoAudioAdapter, NanoAudioEncoder, ctc_text

BLOCK_MEL = 16 * SUBSAMPLING


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return NanoAudioEncoder(hidden_size=48, num_layers=3, num_heads=2, ffn_size=96).eval()


def encode(encoder, features):
    with torch.inference_mode():
        return encoder(features[None], torch.tensor([len(features)]))[0][0]


def test_finished_blocks_do_not_change_while_the_user_goes_on(encoder):
    features = torch.randn(4 * BLOCK_MEL, 80)
    whole, part = encode(encoder, features), encode(encoder, features[: 2 * BLOCK_MEL])
    torch.testing.assert_close(whole[: len(part)], part, atol=1e-5, rtol=0)


def test_a_frame_sees_the_rest_of_its_own_block(encoder):
    features = torch.randn(2 * BLOCK_MEL, 80)
    changed = features.clone()
    changed[BLOCK_MEL - 1] += 1.0
    assert not torch.allclose(encode(encoder, features)[0], encode(encoder, changed)[0])


def test_padding_in_a_batch_changes_nothing(encoder):
    long, short = torch.randn(203, 80), torch.randn(131, 80)
    batch = torch.zeros(2, 203, 80)
    batch[0], batch[1, :131] = long, short
    with torch.inference_mode():
        hidden, _, valid = encoder(batch, torch.tensor([203, 131]))
    assert valid.tolist() == [2 * 26, 2 * 17]
    torch.testing.assert_close(hidden[1, : valid[1]], encode(encoder, short)[: valid[1]], atol=1e-5, rtol=0)


def test_one_row_of_the_backbone_per_80_ms(encoder):
    adapter = NanoAudioAdapter(48, 64)
    for frames, rows in ((1, 1), (8, 1), (9, 2), (250, 32)):
        out, lengths = adapter(*encoder(torch.randn(1, frames, 80), torch.tensor([frames])))
        assert lengths.tolist() == [rows]
        assert out.shape == (1, rows, 64)


def test_ctc_reading_merges_repeats_and_drops_blanks():
    spelled = [0, 3, 3, 0, 3, 1, 4, 4, 0]  # blank b b blank b space c c blank
    log_probs = torch.full((len(spelled), 29), -10.0)
    log_probs[torch.arange(len(spelled)), torch.tensor(spelled)] = 0.0
    assert ctc_text(log_probs) == "bb c"
