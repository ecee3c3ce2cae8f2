"""The GLM-4-Voice vocoder as a stream: how it differs from decoding at once, what it costs, and typical mistakes.

Two things keep a stream from equalling the offline result. The flow decoder sees all tokens at once offline and only
those so far in a stream: that difference is bounded below (``MEL_ERROR``). Everything after it, from mel frames to
samples, must not add any: with a flow decoder that is the same for every chunking, stream and offline agree to
``EXACT`` everywhere, at the seams too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden_decoder import golden_decoder
from vita.errors import AudioError
from vita.speech.flow_decoder import FlowDecoder
from vita.speech.glm4voice_vocoder import (
    CONSTANT_STEPS,
    FrameNoise,
    Glm4VoiceStream,
    Glm4VoiceVocoder,
    StepPolicy,
    StreamSettings,
)
from vita.speech.hift import HiFT

EXACT = 1e-3
"""Samples; measured 7e-5."""
MEL_ERROR = 0.35
"""Mel of stream and offline, root mean square of the difference over that of the mel; measured 0.24."""
MEL_LIKENESS = 0.93
"""Correlation of the two; measured 0.97. One frame of shift brings it below 0.7."""
BOOST_PUSHES = (8, 8, 8, 8)
BALANCE_PUSHES = (2, 6, 8, 8, 8)


class SameForEveryChunking(FlowDecoder):
    """A flow decoder whose mel frame depends on that frame's noise alone."""

    windows: list[tuple[int, int]]

    def solve(self, mu: Tensor, noise: Tensor, prompt: Tensor, steps: int, embedding: Tensor | None = None) -> Tensor:
        self.windows.append((noise.shape[1], prompt.shape[1]))
        return 0.5 * noise + 0.3


@pytest.fixture(scope="module")
def vocoder() -> Glm4VoiceVocoder:
    return Glm4VoiceVocoder(*golden_decoder())


@pytest.fixture
def framewise() -> Glm4VoiceVocoder:
    flow, hift = golden_decoder()
    same = SameForEveryChunking(flow.config, flow.sample_rate, flow.hop).eval()
    same.load_state_dict(flow.state_dict())
    same.windows = []
    return Glm4VoiceVocoder(same, hift)


@pytest.fixture(scope="module")
def tokens(vocoder) -> list[int]:
    return np.random.default_rng(3).integers(0, vocoder.codebook_size, sum(BOOST_PUSHES)).tolist()


def play(stream: Glm4VoiceStream, tokens: Sequence[int], pushes: Sequence[int]) -> list[np.ndarray]:
    """The chunks of a stream that is given so many tokens at a time."""
    chunks, start = [], 0
    for i, count in enumerate(pushes):
        chunks.append(stream.push(tokens[start : start + count], final=i == len(pushes) - 1))
        start += count
    return chunks


def mel_of(vocoder: Glm4VoiceVocoder, tokens: Sequence[int], pushes: Sequence[int], settings: StreamSettings) -> Tensor:
    stream, spoken = vocoder.stream(settings), []
    speak = stream._speak

    def kept(mel: Tensor, count: int) -> np.ndarray:
        spoken.append(mel[:, :count].clone())
        return speak(mel, count)

    stream._speak = kept
    play(stream, tokens, pushes)
    return torch.cat(spoken, dim=1)


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).square().mean() / (expected - expected.mean()).square().mean()).sqrt().item()


def likeness(found: Tensor, expected: Tensor) -> float:
    return torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1].item()


def test_one_push_is_the_offline_result(vocoder, tokens):
    wave = vocoder.stream(StreamSettings(policy=StepPolicy(first=2, growth=0))).push(tokens, final=True)
    np.testing.assert_allclose(wave, vocoder.decode(tokens, steps=2), atol=1e-5)


@pytest.mark.parametrize("pushes", [BOOST_PUSHES, (10, 10, 12), (16, 16, 0)])
def test_given_the_same_mel_stream_and_offline_agree_everywhere(framewise, tokens, pushes):
    wave = np.concatenate(play(framewise.stream(), tokens, pushes))
    np.testing.assert_allclose(wave, framewise.decode(tokens), atol=EXACT)


def test_away_from_the_seam_of_a_tiny_first_chunk_too(framewise, tokens):
    """Balance starts with two tokens, of which half are spoken at once: less look-ahead than the vocoder wants."""
    offline = framewise.decode(tokens)
    chunks = play(framewise.stream(), tokens, BALANCE_PUSHES)
    wave = np.concatenate(chunks)
    assert len(chunks[0]) > 0.05 * framewise.sample_rate
    seam = len(chunks[0])
    reach = framewise.hift.context_frames * framewise.hift.config.hop
    np.testing.assert_allclose(wave[seam + reach :], offline[seam + reach :], atol=10 * EXACT)
    assert np.abs(wave - offline)[: seam + reach].max() < 0.05


@pytest.mark.parametrize("pushes", [BOOST_PUSHES, BALANCE_PUSHES])
def test_mel_of_a_stream_is_close_to_the_offline_mel(vocoder, tokens, pushes):
    settings = StreamSettings(policy=StepPolicy(first=3, growth=0))
    offline = vocoder.decode_mel(tokens, steps=3)
    streamed = mel_of(vocoder, tokens, pushes, settings)
    assert streamed.shape == offline.shape
    assert error(streamed, offline) < MEL_ERROR
    assert likeness(streamed, offline) > MEL_LIKENESS


def test_no_step_in_the_waveform_where_chunks_meet(vocoder, tokens):
    chunks = play(vocoder.stream(StreamSettings(policy=StepPolicy(1, 2, 5))), tokens, BOOST_PUSHES)
    steps = np.abs(np.diff(np.concatenate(chunks)))
    seams = np.cumsum([len(chunk) for chunk in chunks])[:-1] - 1
    assert steps[seams].max() <= np.percentile(steps, 99.9)


def test_gain_is_the_same_in_every_chunk(framewise, tokens):
    offline = framewise.decode(tokens)
    start = 0
    for chunk in play(framewise.stream(), tokens, BOOST_PUSHES):
        part = offline[start : start + len(chunk)]
        assert chunk @ part / (part @ part) == pytest.approx(1.0, abs=0.01)
        start += len(chunk)


def test_every_frame_is_spoken_once(vocoder, tokens):
    """Also when tokens come one by one, or none at all."""
    for pushes in ([1] * 9, [3, 0, 0, 5, 1, 0], [9, 0]):
        wave = np.concatenate(play(vocoder.stream(StreamSettings(policy=StepPolicy(1, 0))), tokens[:9], pushes))
        assert len(wave) == vocoder.flow.frames(9) * vocoder.hift.config.hop
    assert len(vocoder.stream().push([], final=True)) == 0
    assert len(vocoder.decode([])) == 0


def test_steps_follow_the_policy(vocoder, tokens, monkeypatch):
    taken = []
    solve = FlowDecoder.solve

    def noted(self: FlowDecoder, mu: Tensor, noise: Tensor, prompt: Tensor, steps: int, embedding=None) -> Tensor:
        taken.append(steps)
        return solve(self, mu, noise, prompt, 1, embedding)

    monkeypatch.setattr(FlowDecoder, "solve", noted)
    play(vocoder.stream(), tokens, [4] * 8)
    assert taken == [1, 3, 5, 7, 9, 10, 10, 10]
    assert [CONSTANT_STEPS.steps(i) for i in (0, 5)] == [10, 10]


def test_cost_of_a_push_does_not_grow_with_the_utterance(framewise, monkeypatch):
    seen: list[int] = []
    width = framewise.flow.config.encoder_width

    def encode(self: FlowDecoder, tokens: Tensor) -> Tensor:
        seen.append(len(tokens))
        return torch.zeros(len(tokens), width)

    monkeypatch.setattr(FlowDecoder, "encode", encode)
    monkeypatch.setattr(HiFT, "forward", lambda self, mel, source: torch.zeros_like(source))
    stream = framewise.stream()
    count, samples = 50, 0
    for i in range(24):
        samples += len(stream.push([i] * count, final=i == 23))
    settings = framewise.settings
    assert samples == framewise.flow.frames(24 * count) * framewise.hift.config.hop
    assert max(seen) <= 2 * stream._token_period + settings.prompt_tokens + count
    longest = framewise.flow.frames(settings.prompt_tokens + settings.look_ahead_tokens + count) + 3
    assert max(frames for frames, _ in framewise.flow.windows) <= longest
    assert max(prompt for _, prompt in framewise.flow.windows) <= framewise.flow.frames(settings.prompt_tokens) + 2


def test_tokens_of_complete_blocks_are_encoded_for_good(vocoder, tokens):
    block = vocoder.flow.config.encoder_block_size
    with torch.inference_mode():
        some = vocoder.flow.encode(torch.tensor(tokens[:block]))
        more = vocoder.flow.encode(torch.tensor(tokens))[:block]
    torch.testing.assert_close(some, more, atol=1e-5, rtol=0)


def test_streams_do_not_disturb_each_other_or_the_global_generator(vocoder, tokens):
    settings = StreamSettings(policy=StepPolicy(1, 0))
    alone = np.concatenate(play(vocoder.stream(settings), tokens[:16], [8, 8]))
    state = torch.get_rng_state()
    first, second = vocoder.stream(settings), vocoder.stream(settings)
    chunks = [first.push(tokens[:8])]
    second.push(tokens[8:16])
    chunks.append(first.push(tokens[8:16], final=True))
    second.push([], final=True)
    np.testing.assert_allclose(np.concatenate(chunks), alone, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_tokens_are_refused(vocoder):
    with pytest.raises(AudioError, match="codebook"):
        vocoder.stream().push([0, vocoder.codebook_size])
    stream = vocoder.stream()
    stream.push([1, 2], final=True)
    with pytest.raises(AudioError, match="closed"):
        stream.push([3])


class DuplicatedFrame(Glm4VoiceStream):
    """The last frame of a chunk comes again at the beginning of the next, as in the reference's stream."""

    def _speak(self, mel: Tensor, count: int) -> np.ndarray:
        repeated = self._mel[:, -1:]
        return super()._speak(torch.cat([repeated, mel], dim=1), count + repeated.shape[1])


class PeakNormalised(Glm4VoiceStream):
    """Every chunk is scaled to full range, as in the reference's demo."""

    def push(self, tokens: Sequence[int], final: bool = False) -> np.ndarray:
        chunk = super().push(tokens, final)
        return chunk / max(np.abs(chunk).max(initial=0.0), 1e-6)


class FreshNoise(Glm4VoiceStream):
    """Every push starts from new noise instead of that of its frames."""

    def push(self, tokens: Sequence[int], final: bool = False) -> np.ndarray:
        config = self.vocoder.hift.config
        seed = self.vocoder.seed + self._push
        self._noise = FrameNoise(seed, config.in_channels, config.nb_harmonics + 1, config.hop)
        return super().push(tokens, final)


class PhaseRestarts(Glm4VoiceStream):
    """The harmonic source of every chunk starts from phase zero."""

    def _speak(self, mel: Tensor, count: int) -> np.ndarray:
        self._cycles = None
        return super()._speak(mel, count)


class NoContext(Glm4VoiceStream):
    """The vocoder sees the frames of one chunk only."""

    def _speak(self, mel: Tensor, count: int) -> np.ndarray:
        self._mel, self._source = self._mel[:, :0], self._source[:0]
        return super()._speak(mel, count)


class HeldFramesDropped(Glm4VoiceStream):
    """Frames held back are never spoken."""

    def _speak(self, mel: Tensor, count: int) -> np.ndarray:
        chunk = super()._speak(mel, count)
        self._spoken += self._held.shape[1]
        self._held = self._held[:, :0]
        return chunk


@pytest.mark.parametrize(
    "mistake", [DuplicatedFrame, PeakNormalised, FreshNoise, PhaseRestarts, NoContext, HeldFramesDropped]
)
def test_typical_mistakes_are_caught(framewise, tokens, mistake):
    offline = framewise.decode(tokens)
    wave = np.concatenate(play(mistake(framewise, framewise.settings), tokens, BOOST_PUSHES))
    assert wave.shape != offline.shape or np.abs(wave - offline).max() > 10 * EXACT


def test_a_duplicated_mel_frame_is_caught_in_the_mel_alone(vocoder, tokens):
    offline = vocoder.decode_mel(tokens, steps=3)
    shifted = torch.cat([offline[:, :60], offline[:, 59:-1]], dim=1)
    assert likeness(shifted, offline) < MEL_LIKENESS
    assert error(shifted, offline) > MEL_ERROR
