"""The model as a checkpoint: published shapes, strict loading with readable refusals, Auto classes, caches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from vita.errors import AudioError, CheckpointError
from vita.model.causal_lm import VitaAudioForCausalLM
from vita.model.config import VitaAudioConfig, VitaAudioSenseVoiceConfig
from vita.model.placement import Placement

SMALL = {
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_nextn_predict_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NANO_INPUT = {"type": "nano", "hidden_size": 32, "num_layers": 1, "num_heads": 2, "ffn_size": 48}
PUBLISHED = {
    "vocab_size": 168072,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = VitaAudioForCausalLM(VitaAudioConfig(**SMALL))
    model.half().save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("layers", "mctp", "parameters"),
    [
        (38, 10, 10_317_912_576),  # Boost, Balance
        (28, 0, 7_730_361_856),  # language part of Plus-Vanilla
        (29, 1, 7_989_116_928),  # stage 2 of the training
    ],
)
def test_published_shapes_have_the_published_sizes(layers: int, mctp: int, parameters: int) -> None:
    config = VitaAudioConfig(num_hidden_layers=layers, num_nextn_predict_layers=mctp, **PUBLISHED)
    with torch.device("meta"):
        model = VitaAudioForCausalLM(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_parameter_names_are_the_published_ones() -> None:
    names = set(VitaAudioForCausalLM(VitaAudioConfig(**SMALL)).state_dict())
    layer = {name.removeprefix("model.layers.4.") for name in names if name.startswith("model.layers.4.")}
    assert layer == {
        "input_layernorm.weight", "post_attention_layernorm.weight",
        "self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight", "self_attn.k_proj.bias",
        "self_attn.v_proj.weight", "self_attn.v_proj.bias", "self_attn.o_proj.weight",
        "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
    }  # fmt: skip
    assert {name for name in names if not name.startswith("model.layers.")} == {
        "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        *(f"mtp_{part}.{k}.weight" for part in ("projs", "embed_norms", "hidden_norms") for k in range(3)),
    }  # fmt: skip


@pytest.mark.parametrize("mctp", [0, 1, 3])
def test_half_precision_weights_load_as_float32_through_the_auto_classes(tmp_path: Path, mctp: int) -> None:
    config = VitaAudioConfig(**SMALL | {"num_nextn_predict_layers": mctp, "num_hidden_layers": 2 + mctp})
    saved = VitaAudioForCausalLM(config).half()
    saved.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is VitaAudioForCausalLM
    assert not loaded.training
    assert (loaded.num_main_layers, loaded.num_mctp) == (2, mctp)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.float()), name
    assert loaded(torch.tensor([[1, 2, 3]])).isfinite().all()


def test_shards_and_dtype(folder: Path) -> None:
    whole = VitaAudioForCausalLM.from_pretrained(folder)
    sharded = folder / "sharded"
    whole.save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    loaded = VitaAudioForCausalLM.from_pretrained(sharded, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.lm_head.weight, whole.lm_head.weight.bfloat16())


def test_published_config_files_are_understood(tmp_path: Path) -> None:
    published = PUBLISHED | {
        "architectures": ["Qwen2MTPSenseVoiceForCausalLM"],
        "model_type": "qwen2_mtp_sensevoice",
        "num_hidden_layers": 38,
        "num_nextn_predict_layers": 10,
        "auto_map": {"AutoModelForCausalLM": "modeling_qwen2.Qwen2MTPSenseVoiceForCausalLM"},
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": 28,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.48.3",
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is VitaAudioSenseVoiceConfig
    assert (config.num_main_layers, config.rope_parameters["rope_theta"]) == (28, 1e6)
    assert config.audio_encoder == {"type": "sensevoice"}
    assert config.detach_mctp_inputs


def test_audio_encoder_travels_with_the_model(tmp_path: Path) -> None:
    model = VitaAudioForCausalLM(VitaAudioConfig(**SMALL, audio_encoder=NANO_INPUT)).eval()
    model.save_pretrained(tmp_path)
    loaded = VitaAudioForCausalLM.from_pretrained(tmp_path)
    features, lengths = torch.randn(2, 40, 80), torch.tensor([40, 17])
    with torch.inference_mode():
        expected, found = model.encode_audio(features, lengths), loaded.encode_audio(features, lengths)
    assert [rows.shape for rows in found] == [(5, 32), (3, 32)]
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)


def test_audio_features_need_an_audio_encoder(folder: Path) -> None:
    model = VitaAudioForCausalLM.from_pretrained(folder)
    with pytest.raises(AudioError, match="speech tokenizer"):
        model.encode_audio(torch.zeros(1, 8, 80), torch.tensor([8]))
    with pytest.raises(AudioError, match="2 audio rows at position 2 do not fit a prompt of 3 tokens"):
        model.embed_prompt(torch.tensor([[1, 2, 3]]), [(2, torch.zeros(2, 32))])


@torch.inference_mode()
def test_cached_chunks_equal_one_pass(folder: Path) -> None:
    """Both through transformers' caches: chunks of several rows need bottom-right masks on every level."""
    model = VitaAudioForCausalLM.from_pretrained(folder)
    ids = torch.randint(0, 80, (1, 12))
    embeds, positions, cache = model.embed_tokens(ids), torch.arange(12), DynamicCache()
    whole = model.forward_main(embeds, positions)
    parts = [model.forward_main(embeds[:, a:b], positions[a:b], cache) for a, b in ((0, 5), (5, 6), (6, 12))]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)
    expected = model.forward_mctp(0, embeds[:, 1:], whole[:, :-1], positions[1:])
    parts = [
        model.forward_mctp(0, embeds[:, a + 1 : b + 1], whole[:, a:b], positions[a + 1 : b + 1], cache)
        for a, b in ((0, 4), (4, 11))
    ]
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mtp_projs.2.weight"), "1 missing (mtp_projs.2.weight)"),
        (lambda t: t.update({"mtp_projs.3.weight": torch.zeros(1)}), "1 unexpected (mtp_projs.3.weight)"),
        (lambda t: t.update({"lm_head.weight": torch.zeros(88, 32)}), "lm_head.weight is 88x32, expected 80x32"),
    ],
)
def test_keys_that_do_not_fit_are_named(folder: Path, change, message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(CheckpointError) as refusal:
        VitaAudioForCausalLM.from_pretrained(folder)
    text = str(refusal.value)
    assert message in text
    assert text.startswith(f"{folder / 'model.safetensors'} does not fit VitaAudioForCausalLM")
    assert "\n" not in text


def test_damaged_and_missing_files_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated .* download it again"):
        VitaAudioForCausalLM.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no weights: expected model\.safetensors"):
        VitaAudioForCausalLM.from_pretrained(folder)
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks model-00001-of-00002\.safetensors"):
        VitaAudioForCausalLM.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        VitaAudioForCausalLM.from_pretrained(folder / "elsewhere")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_nextn_predict_layers": 5}, "counts main and MCTP layers together"),
        ({"num_nextn_predict_layers": -1}, "expected at least 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"hidden_size": 30}, "hidden_size 30"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding-window"),
        ({"audio_encoder": {"hidden_size": 3}}, "no 'type'"),
    ],
)
def test_contradicting_configs_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        VitaAudioConfig(**SMALL | fields)


def test_unknown_audio_input_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'whisper'.*nano, sensevoice"):
        VitaAudioForCausalLM(VitaAudioConfig(**SMALL, audio_encoder={"type": "whisper"}))
    with pytest.raises(CheckpointError, match="do not fit type 'nano'"):
        VitaAudioForCausalLM(VitaAudioConfig(**SMALL, audio_encoder={"type": "nano", "wings": 2}))


def test_audio_modules_keep_their_own_initialisation() -> None:
    torch.manual_seed(3)
    model = VitaAudioForCausalLM(VitaAudioConfig(**SMALL | {"initializer_range": 1e-9}, audio_encoder=NANO_INPUT))
    assert model.lm_head.weight.abs().max() < 1e-6
    for part in (model.model.audio_model, model.model.audio_projection):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                assert module.weight.std() > 1e-3


def test_placement_by_longest_prefix() -> None:
    placement = Placement.of({"": "cuda:1", "model.layers.1": "cuda:0", "model.layers.11.": "cpu"}, 12)
    names = ("lm_head.weight", "model.layers.1.mlp", "model.layers.10.mlp", "model.layers.11.mlp")
    assert [str(placement.device_of(name)) for name in names] == ["cuda:1", "cuda:0", "cuda:0", "cpu"]
    assert not placement.on_cpu
    assert Placement.of(None, 12).on_cpu
    with pytest.raises(CheckpointError, match="names no device"):
        Placement.of("gpu", 12)
    with pytest.raises(CheckpointError, match="where the rest goes"):
        Placement.of({"model.": "cpu"}, 12)
