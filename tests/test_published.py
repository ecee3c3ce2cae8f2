"""The published checkpoints: their real shapes, and tiny look-alikes in their layout through the public API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.lookalike import make_lookalikes
from vita import AudioChunk, CheckpointError, Finished, Sampling, TextDelta, VitaAudio, VitaError
from vita.__main__ import main
from vita.check import check
from vita.errors import AudioError
from vita.hub import HubFile
from vita.model.causal_lm import VitaAudioForCausalLM, VitaAudioSenseVoiceForCausalLM
from vita.model.config import VitaAudioConfig, VitaAudioSenseVoiceConfig
from vita.registry import MODELS, find
from vita.speech.flow_decoder import FlowConfig, FlowDecoder
from vita.speech.hift import HiFT, HiFTConfig
from vita.speech.published_input import Glm4VoiceInput
from vita.speech.whisper_vq import WhisperVQConfig, WhisperVQEncoder
from vita.vocabulary import Vocabulary

BOOST, PLUS = "VITA-MLLM/VITA-Audio-Boost", "VITA-MLLM/VITA-Audio-Plus-Boost"
PLUS_VANILLA = "VITA-MLLM/VITA-Audio-Plus-Vanilla"
TOKENIZER, DECODER = "THUDM/glm-4-voice-tokenizer", "THUDM/glm-4-voice-decoder"
SENSEVOICE = "FunAudioLLM/SenseVoiceSmall"
MODES = ["vanilla", "balance", "boost", "turbo", [1, 4, 2, 8]]
SHORT = Sampling(do_sample=True, temperature=1.0, seed=1)

PUBLISHED_CONFIG = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
    "rope_theta": 1e6, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "vocab_size": 168072,
    "tie_word_embeddings": False, "bos_token_id": 151643, "eos_token_id": 151645,
}  # fmt: skip


@pytest.fixture(scope="session")
def lookalikes(tmp_path_factory) -> dict[str, Path]:
    return make_lookalikes(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def opened(lookalikes) -> dict[str, VitaAudio]:
    return {name: VitaAudio.from_pretrained(lookalikes[name], device="cpu") for name in (BOOST, PLUS, PLUS_VANILLA)}


@pytest.fixture
def copies(lookalikes, tmp_path) -> dict[str, Path]:
    """A copy of everything, to be broken."""
    root = lookalikes[BOOST].parent.parent
    shutil.copytree(root, tmp_path / "models")
    return {name: tmp_path / "models" / name for name in lookalikes}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("entry", MODELS[1:], ids=lambda entry: entry.name)
def test_published_shapes_have_the_published_number_of_parameters(entry):
    mctp = 0 if entry.name.endswith("Vanilla") else 10
    plus = "Plus" in entry.name
    kind, config = (VitaAudioSenseVoiceForCausalLM, VitaAudioSenseVoiceConfig) if plus else (
        VitaAudioForCausalLM, VitaAudioConfig)  # fmt: skip
    with torch.device("meta"):
        model = kind(config(**PUBLISHED_CONFIG, num_hidden_layers=28 + mctp, num_nextn_predict_layers=mctp))
    assert parameters(model) == entry.parameters
    if plus:
        assert parameters(model.model.audio_model) == 233_999_167


def test_published_speech_parts_have_the_published_sizes():
    with torch.device("meta"):
        encoder, flow, hift = WhisperVQEncoder(WhisperVQConfig()), FlowDecoder(FlowConfig()), HiFT(HiFTConfig())
    ema = 16384 + 16384 * 1280
    assert parameters(encoder) == 343_599_360
    assert (parameters(encoder) + ema) * 4 == pytest.approx(1.4583e9, rel=1e-4)
    assert len(encoder.state_dict()) == 247  # 249 with the two statistics of training
    assert parameters(flow) == 111_166_208
    assert len(flow.state_dict()) == 1185
    normed = [m for name, m in hift.named_modules() if hasattr(m, "kernel_size") and "source_downs" not in name]
    assert parameters(hift) + sum(m.weight.shape[0] for m in normed) == 20_460_591
    assert len(hift.state_dict()) + len(normed) == 227


def test_token_ids_are_asked_of_the_tokenizer(lookalikes):
    boost, plus = (Vocabulary.from_folder(lookalikes[name]) for name in (BOOST, PLUS))
    assert boost.audio_count == plus.audio_count == 16_384
    assert plus.first_audio_id == boost.first_audio_id + 1  # <|context_of_audio|> comes before
    published_offset = json.loads((lookalikes[PLUS] / "config.json").read_text())["speech_token_offset"]
    assert plus.first_audio_id != published_offset


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((BOOST, mode) for mode in MODES), *((PLUS, mode) for mode in MODES[:4]), (PLUS_VANILLA, "boost")],
    ids=str,
)
def test_a_conversation_in_every_mode(opened, tone, name, mode):
    assistant = opened[name]
    events = list(assistant.respond(audio=(tone, 16_000), mode=mode, sampling=SHORT, max_new_tokens=24))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert len(finished.tokens) == 24
    samples = np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
    spoken = sum(token.kind == "audio" for token in finished.tokens)
    vocoder = assistant._checkpoint.speech.vocoder
    assert spoken > 12
    assert len(samples) == vocoder.flow.frames(spoken) * 256
    assert np.isfinite(samples).all()
    assert assistant.sample_rate == 22_050
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == finished.text
    if name == PLUS_VANILLA:
        assert finished.passes["mctp"] == 0
    # The next turn remembers this one, the recording included.
    again = list(assistant.respond(text="And now?", mode=mode, sampling=SHORT, max_new_tokens=4,
                                   history=finished.history))  # fmt: skip
    assert isinstance(again[-1], Finished)


@pytest.mark.parametrize("name", [BOOST, PLUS])
def test_transcribing_and_reading_aloud(opened, tone, name):
    transcript = opened[name].transcribe((tone, 16_000), max_new_tokens=6)
    assert len(transcript.tokens) == 6
    speech = opened[name].speak("Berlin.", sampling=SHORT, max_new_tokens=12)
    assert speech.sample_rate == 22_050


def test_prompts_hold_tokens_or_rows(opened, tone):
    boost, plus = (opened[name]._checkpoint for name in (BOOST, PLUS))
    heard = boost.speech.input.hear(tone)
    assert heard.rows is None
    assert len(heard.ids) == 2 + 13  # 12.5 tokens per second, one begun counts
    assert all(boost.vocabulary.kind(id) == "audio" for id in heard.ids[1:-1])
    rows = plus.speech.input.hear(tone)
    frames = -(-98 // 6)  # whole 25 ms windows every 10 ms, six to a row
    assert len(rows.rows) == frames + 4
    assert rows.ids[1:-1] == [plus.vocabulary.context_of_audio] * (frames + 4)


def test_voice_prompts(opened, tone, speech_like):
    from tests.tiny_checkpoint import scripted

    boost = opened[BOOST]
    vocabulary = boost._checkpoint.vocabulary
    script = [vocabulary.im_end]
    with scripted(script) as plain:
        boost.speak("Berlin.", voice=(speech_like, 16_000))
    text = vocabulary.decode(plain.prompts[0])
    assert text.startswith("<|im_start|>system\nYour Voice: <|begin_of_audio|><|audio_")
    assert "<|end_of_audio|>\n<|im_end|>\n<|im_start|>user\nConvert the text to speech.\nBerlin.<|im_end|>" in text
    with scripted(script) as asked:
        list(boost.respond(audio=(tone, 16_000), voice=(speech_like, 16_000)))
    assert "Your Name" not in vocabulary.decode(asked.prompts[0])
    for name in (PLUS, PLUS_VANILLA):
        with pytest.raises(VitaError, match="no voice prompt"):
            opened[name].speak("Berlin.", voice=(speech_like, 16_000))


@pytest.mark.parametrize("name", [BOOST, PLUS])
def test_recordings_too_short_or_too_long(opened, name):
    for seconds in (0.01, 600.0):
        recording = np.full(int(seconds * 16_000), 0.1, np.float32)
        recording[::2] = -0.1
        with pytest.raises(AudioError, match=r"10 ms|600|10 min|long"):
            opened[name].transcribe((recording, 16_000))


def test_generation_settings_are_the_published_ones(opened):
    sampling = opened[BOOST]._checkpoint.sampling
    assert (sampling.do_sample, sampling.temperature, sampling.top_k, sampling.top_p) == (True, 0.7, 20, 0.8)
    assert sampling.repetition_penalty == 1.05


def test_bf16_positions_are_the_default_in_bf16_only(lookalikes, opened):
    def table(assistant: VitaAudio) -> torch.Tensor:
        encoder = assistant._checkpoint.model.model.audio_model.encoder
        return encoder.position_embeddings.positional_embedding[:600].float()

    half = VitaAudio.from_pretrained(lookalikes[PLUS], device="cpu", dtype="bfloat16")
    assert (table(half)[1:] - table(opened[PLUS])[1:]).abs().max() > 1.0
    assert torch.equal(table(half)[257], table(half)[256])  # bfloat16 has no 257


def test_a_model_saved_again_has_the_published_names(opened, lookalikes, tmp_path):
    opened[PLUS]._checkpoint.model.save_pretrained(tmp_path)
    index = json.loads((lookalikes[PLUS] / "model.safetensors.index.json").read_text())["weight_map"]
    assert load_file(tmp_path / "model.safetensors").keys() == index.keys()


def test_check_before_and_after(lookalikes, capsys, monkeypatch):
    assert main(["check", str(lookalikes[PLUS]), "--deep", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "everything fits" in out
    for part in ("tokenizer", "weights", "model-00001-of-00002.safetensors", "SenseVoiceSmall", "glm-4-voice-decoder"):
        assert f"{part}: " in out

    monkeypatch.setattr("vita.check.available_bytes", lambda device: 40_000_000_000)
    assert main(["check", BOOST, "--device", "cpu"]) == 0  # no network here: the table answers
    out = capsys.readouterr().out
    for part in (BOOST, TOKENIZER, DECODER, "20.6 GB", "licence", "24 GB", "cannot be reached"):
        assert part in out
    files = [HubFile("config.json", 1_000, True), HubFile("model.safetensors", 5_000_000_000, False)]
    monkeypatch.setattr("vita.hub.listing", lambda hub_id, patterns: files)
    report = check(BOOST, device="cpu").text()
    assert "1 of 2 files, 5.0 GB" in report
    monkeypatch.setattr("vita.check.available_bytes", lambda device: 8_000_000_000)
    assert main(["check", BOOST, "--device", "cpu"]) == 2
    assert "too little memory" in capsys.readouterr().err


def rewrite(path: Path, change) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lose(*keys: str):
    return lambda weights: [weights.pop(key) for key in keys]


SHARD = "model-00002-of-00002.safetensors"
BROKEN = {
    "missing key": (BOOST, SHARD, lambda p: rewrite(p, lose("mtp_projs.3.weight")), ["mtp_projs.3.weight", "missing"]),
    "extra key": (BOOST, SHARD, lambda p: rewrite(p, lambda w: w.update(more=torch.ones(2))), ["more", "unexpected"]),
    "wrong shape": (BOOST, SHARD, lambda p: rewrite(p, lambda w: w.update({"mtp_projs.3.weight": torch.ones(3, 2)})),
                    ["mtp_projs.3.weight", "3x2", "32x64"]),
    "missing audio key": (PLUS, SHARD,
                          lambda p: rewrite(p, lose("model.audio_model.model.embed.weight")),
                          ["model.audio_model.model.embed.weight"]),
    "truncated shard": (BOOST, SHARD, halve, [SHARD, "download"]),
    "missing shard": (BOOST, SHARD, Path.unlink, [SHARD, "download"]),
    "damaged index": (BOOST, "model.safetensors.index.json", halve, ["index"]),
    "contradicting config": (BOOST, "config.json", lambda p: edit(p, num_nextn_predict_layers=40),
                             ["num_nextn_predict_layers"]),
    "config of another size": (BOOST, "config.json", lambda p: edit(p, intermediate_size=64), ["config.json"]),
    "tokenizer without audio": (BOOST, "tokenizer.json",
                                lambda p: p.write_text(p.read_text().replace("<|audio_", "<|sound_")),
                                ["tokenizer.json", "audio tokens"]),
    "tokenizer config": (TOKENIZER, "config.json", lambda p: edit(p, pooling_position=3), ["pooling_position"]),
    "tokenizer features": (TOKENIZER, "preprocessor_config.json", lambda p: edit(p, feature_size=80), ["feature_size"]),
    "tokenizer key": (TOKENIZER, "model.safetensors", lambda p: rewrite(p, lose("codebook.weight")), ["codebook"]),
    "decoder yaml": (DECODER, "config.yaml", lambda p: p.write_text("flow: [1"), ["config.yaml"]),
    "decoder shape": (DECODER, "config.yaml",
                      lambda p: p.write_text(p.read_text().replace("num_blocks: 1", "num_blocks: 2")), ["flow.pt"]),
    "decoder truncated": (DECODER, "flow.pt", halve, ["flow.pt", "download"]),
    "decoder missing": (DECODER, "hift.pt", Path.unlink, ["hift.pt"]),
    "statistics": (PLUS, "am.mvn", lambda p: p.write_text("<Nnet>"), ["am.mvn", "AddShift"]),
    "encoder conf": (PLUS, "config.yaml", lambda p: p.write_text("encoder: x"), ["encoder_conf"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(copies, case, capsys):
    owner, name, break_it, told = BROKEN[case]
    break_it(copies[owner] / name)
    model = copies[PLUS if owner in (PLUS, SENSEVOICE) else BOOST]
    with pytest.raises(CheckpointError) as caught:
        VitaAudio.from_pretrained(model, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in told), message
    assert main(["check", str(model), "--deep", "--device", "cpu"]) == 2
    assert "problem:" in capsys.readouterr().out


def test_deep_check_compares_the_original_encoder_too(copies, capsys):
    path = copies[SENSEVOICE] / "model.pt"
    weights = torch.load(path, weights_only=True)
    torch.save({"state_dict": weights}, path)
    assert main(["check", str(copies[PLUS]), "--deep", "--device", "cpu"]) == 0
    assert "model.pt:  fits" in capsys.readouterr().out
    del weights["encoder.tp_norm.bias"]
    torch.save(weights, path)
    assert main(["check", str(copies[PLUS]), "--deep", "--device", "cpu"]) == 2
    assert "encoder.tp_norm.bias" in capsys.readouterr().err


def test_code_in_a_pickle_is_refused(copies):
    from tests.test_weights import Bomb

    trace = copies[DECODER] / "it ran"
    weights = torch.load(copies[DECODER] / "flow.pt", weights_only=True)
    torch.save({**weights, "bomb": Bomb(trace)}, copies[DECODER] / "flow.pt")
    with pytest.raises(CheckpointError, match=r"flow\.pt contains code"):
        VitaAudio.from_pretrained(copies[BOOST], device="cpu")
    assert not trace.exists()


def test_a_speech_part_that_is_nowhere(copies):
    shutil.rmtree(copies[DECODER])
    with pytest.raises(CheckpointError) as caught:
        VitaAudio.from_pretrained(copies[BOOST], device="cpu")
    for part in (DECODER, "vocoder", "network", str(copies[BOOST].parent)):
        assert part in str(caught.value)
    assert check(str(copies[BOOST]), device="cpu").problems


def test_a_published_name_without_network():
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        VitaAudio.from_pretrained(BOOST, device="cpu")
    assert find(BOOST).parts == (TOKENIZER, DECODER)


def test_too_little_memory(lookalikes, monkeypatch):
    monkeypatch.setattr("vita.memory.available_bytes", lambda device: 1_000_000)
    with pytest.raises(CheckpointError, match=r"needs 0\.0 GB of memory on cpu"):
        VitaAudio.from_pretrained(lookalikes[BOOST], device="cpu")


def test_channel_and_length_limits_of_the_inputs(opened):
    boost, plus = (opened[name]._checkpoint.speech.input for name in (BOOST, PLUS))
    assert (boost.channel, plus.channel) == ("first", "mean")
    assert isinstance(boost, Glm4VoiceInput)
    encoder = opened[PLUS]._checkpoint.model.model.audio_model
    assert plus.max_seconds * 100 / 6 + 4 < encoder.max_frames
