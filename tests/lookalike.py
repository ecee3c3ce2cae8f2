"""Writes tiny random checkpoints in exactly the layout in which VITA-Audio and its speech parts are published.

    python -m tests.lookalike FOLDER

makes ``FOLDER/VITA-MLLM/VITA-Audio-Boost`` (audio as tokens, 10 MCTP modules), ``.../VITA-Audio-Plus-Boost``
(SenseVoice input) and ``.../VITA-Audio-Plus-Vanilla`` (no MCTP module), and beside them the speech parts
``FOLDER/THUDM/glm-4-voice-tokenizer``, ``FOLDER/THUDM/glm-4-voice-decoder``, ``FOLDER/FunAudioLLM/SenseVoiceSmall``.
File names, key names, special tokens and their order, and the 16,384 audio tokens are the published ones; sizes
and weights are not, so what such a model says means nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import Qwen2TokenizerFast

from vita.model.causal_lm import VitaAudioForCausalLM, VitaAudioSenseVoiceForCausalLM
from vita.model.config import VitaAudioConfig, VitaAudioSenseVoiceConfig
from vita.model.sensevoice_encoder import SenseVoiceEncoder
from vita.speech.decoder_config import read_decoder_config
from vita.speech.flow_decoder import FlowConfig, FlowDecoder
from vita.speech.hift import HiFT, HiFTConfig
from vita.speech.whisper_vq import WhisperVQConfig, WhisperVQEncoder

AUDIO_TOKENS = 16_384
QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_PAIRS = ("image", "video", "patch")
VITA_SPECIAL = tuple(f"<|{what}_of_{of}|>" for of in _PAIRS for what in ("begin", "end", "context"))
"""What VITA-Audio adds in front of the audio tokens, in its order; see also :func:`special_tokens`."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = (
    "Convert the speech to text.\n", "Convert the text to speech.\n", "user\nassistant\nsystem\n",
    "Your Name: Luke\nYour Gender: male\n\nRespond in a text-audio interleaved manner.", "Your Voice: \n",
    "The capital of Germany is Berlin.", "Seven plus eight is fifteen.",
)  # fmt: skip
ENCODER_CONF = {
    "output_size": 32, "attention_heads": 2, "linear_units": 48, "num_blocks": 2, "tp_blocks": 1,
    "dropout_rate": 0.1, "positional_dropout_rate": 0.1, "attention_dropout_rate": 0.1, "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True, "kernel_size": 11, "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
}  # fmt: skip
CTC_SIZE = 19
DECODER_YAML = """\
# set random seed, so that you may reproduce your result.
__set_seed1: !apply:random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]

# fixed params
sample_rate: 22050
text_encoder_input_size: 512
llm_input_size: 1024
spk_embed_dim: 192

flow: !new:cosyvoice.flow.flow.MaskedDiffWithXvec
    input_size: 32
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: 16384
    input_frame_rate: 12.5
    only_mask_loss: True
    encoder: !new:cosyvoice.transformer.encoder.BlockConformerEncoder
        output_size: 32
        attention_heads: 2
        linear_units: 48
        num_blocks: 1
        dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'block_rel_selfattn'
        input_size: 32
        use_cnn_module: False
        macaron_style: False
        block_size: 10
    length_regulator: !new:cosyvoice.flow.length_regulator.InterpolateRegulator
        channels: 80
        sampling_ratios: [1, 1, 1, 1]
    decoder: !new:cosyvoice.flow.flow_matching.ConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: 0.7
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            in_channels: 320
            out_channels: 80
            channels: [16, 16]
            dropout: 0.0
            attention_head_dim: 8
            n_blocks: 1
            num_mid_blocks: 1
            num_heads: 2
            act_fn: 'gelu'

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: 80
    base_channels: 16
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 8]
    upsample_kernel_sizes: [16, 16]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: 16
"""


def special_tokens(plus: bool) -> list[str]:
    """The tokens between Qwen's own and ``<|audio_0|>``; Plus models have one more, for SenseVoice's rows."""
    context = ["<|context_of_audio|>"] if plus else []
    rest = [f"<|{what}_of_{of}|>" for of in ("quad", "ref", "box") for what in ("begin", "end")]
    return [*VITA_SPECIAL, "<|begin_of_audio|>", "<|end_of_audio|>", *context, *rest,
            "<|image|>", "<|video|>", "<|audio|>"]  # fmt: skip


def make_lookalikes(root: Path, seed: int = 0) -> dict[str, Path]:
    """Write all checkpoints and speech parts below ``root``; hub id -> folder."""
    torch.manual_seed(seed)
    folders = {
        name: root / name
        for name in (
            "VITA-MLLM/VITA-Audio-Boost", "VITA-MLLM/VITA-Audio-Plus-Boost", "VITA-MLLM/VITA-Audio-Plus-Vanilla",
            "THUDM/glm-4-voice-tokenizer", "THUDM/glm-4-voice-decoder", "FunAudioLLM/SenseVoiceSmall",
        )
    }  # fmt: skip
    make_glm_tokenizer(folders["THUDM/glm-4-voice-tokenizer"])
    make_glm_decoder(folders["THUDM/glm-4-voice-decoder"])
    make_sensevoice(folders["FunAudioLLM/SenseVoiceSmall"])
    make_language_model(folders["VITA-MLLM/VITA-Audio-Boost"], plus=False, mctp=10)
    make_language_model(folders["VITA-MLLM/VITA-Audio-Plus-Boost"], plus=True, mctp=10)
    make_language_model(folders["VITA-MLLM/VITA-Audio-Plus-Vanilla"], plus=True, mctp=0)
    return folders


def make_language_model(folder: Path, plus: bool, mctp: int) -> Path:
    """A language model: config files, tokenizer, two safetensors shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(folder, plus)
    values = {
        "architectures": ["Qwen2MTPSenseVoiceForCausalLM" if plus else "Qwen2MTPForCausalLM"],
        "model_type": "qwen2_mtp_sensevoice" if plus else "qwen2_mtp",
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "max_position_embeddings": 4096,
        "max_window_layers": 2,
        "mtp_loss_weight": 1.0,
        "num_attention_heads": 2,
        "num_hidden_layers": 2 + mctp,
        "num_key_value_heads": 1,
        "num_nextn_predict_layers": mctp,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "speech_token_offset": 151685,  # as published: right for Boost, wrong for Plus
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.48.3",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": -(-len(tokenizer) // 8) * 8,
    }
    _write_json(folder / "config.json", values)
    _write_json(folder / "generation_config.json", {
        "bos_token_id": values["bos_token_id"],
        "do_sample": True,
        "eos_token_id": [values["eos_token_id"], values["bos_token_id"]],
        "max_new_tokens": 40,
        "mtp_inference_mode": [1, 10, 4, 10],
        "pad_token_id": values["bos_token_id"],
        "repetition_penalty": 1.05,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "transformers_version": "4.48.3",
    })  # fmt: skip
    if plus:
        config = VitaAudioSenseVoiceConfig.from_pretrained(folder)
        config.audio_encoder = {"type": "sensevoice", **_encoder_arguments()}
        model = VitaAudioSenseVoiceForCausalLM(config)
        _write_sensevoice_config(folder)
    else:
        model = VitaAudioForCausalLM(VitaAudioConfig.from_pretrained(folder))
    _write_shards(folder, {key: tensor.bfloat16() for key, tensor in model.state_dict().items()})
    return folder


def make_tokenizer(folder: Path, plus: bool) -> Qwen2TokenizerFast:
    """A byte-level BPE with Qwen's pre-tokenisation and all added tokens in their published order."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer = Qwen2TokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   unk_token=None, bos_token=None)
    tokenizer.add_tokens(list(QWEN_SPECIAL), special_tokens=True)
    tokenizer.add_tokens(special_tokens(plus), special_tokens=True)
    tokenizer.add_tokens([f"<|audio_{i}|>" for i in range(AUDIO_TOKENS)], special_tokens=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_glm_tokenizer(folder: Path) -> Path:
    """The speech tokenizer: ``config.json``, ``preprocessor_config.json``, ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "architectures": ["WhisperVQEncoder"], "model_type": "whisper", "d_model": 16, "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24, "encoder_layers": 4, "activation_function": "gelu", "scale_embedding": False,
        "num_mel_bins": 128, "max_source_positions": 1500, "vocab_size": 51866, "encoder_causal_attention": False,
        "encoder_causal_convolution": True, "quantize_causal_encoder": False, "quantize_causal_block_size": 200,
        "quantize_encoder_only": True, "quantize_position": 2, "quantize_vocab_size": AUDIO_TOKENS,
        "quantize_ema_decay": 0.99, "pooling_kernel_size": 4, "pooling_position": 2, "pooling_type": "avg",
        "skip_language_detection": True, "torch_dtype": "float32",
    }  # fmt: skip
    _write_json(folder / "config.json", values)
    _write_json(folder / "preprocessor_config.json", {
        "chunk_length": 30, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
        "hop_length": 160, "n_fft": 400, "n_samples": 480000, "nb_max_frames": 3000, "padding_side": "right",
        "padding_value": 0.0, "processor_class": "WhisperProcessor", "return_attention_mask": False,
        "sampling_rate": 16000,
    })  # fmt: skip
    encoder = WhisperVQEncoder(WhisperVQConfig.from_dict(values))
    weights = dict(encoder.state_dict())
    weights["ema_count"] = torch.ones(AUDIO_TOKENS)  # training statistics that the published file carries
    weights["ema_weight"] = weights["codebook.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_glm_decoder(folder: Path) -> Path:
    """The vocoder: ``config.yaml``, ``flow.pt``, ``hift.pt`` with the old spelling of weight norm."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(DECODER_YAML, encoding="utf-8")
    sections = read_decoder_config(folder)
    torch.save(FlowDecoder(FlowConfig.from_dict(sections["flow"])).state_dict(), folder / "flow.pt")
    torch.save(split_weight_norm(HiFT(HiFTConfig.from_dict(sections["hift"]))), folder / "hift.pt")
    return folder


def make_sensevoice(folder: Path) -> Path:
    """The speech encoder: ``model.pt``, ``am.mvn``, ``config.yaml``, ``configuration.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    state = SenseVoiceEncoder(**_encoder_arguments()).state_dict()
    torch.save({key.removeprefix("model."): tensor for key, tensor in state.items()}, folder / "model.pt")
    _write_sensevoice_config(folder)
    return folder


def split_weight_norm(hift: HiFT) -> dict[str, Tensor]:
    """``hift.pt`` stores ``weight_g`` and ``weight_v`` for every convolution but those of the source."""
    weights: dict[str, Tensor] = {}
    normed = {
        name for name, module in hift.named_modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and not name.startswith("source_downs")
    }
    for key, tensor in hift.state_dict().items():
        owner, _, kind = key.rpartition(".")
        if owner in normed and kind == "weight":
            norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.ndim - 1))
            weights[f"{owner}.weight_g"], weights[f"{owner}.weight_v"] = norm, tensor.clone()
        else:
            weights[key] = tensor.clone()
    return weights


def _encoder_arguments() -> dict:
    names = ("output_size", "attention_heads", "linear_units", "num_blocks", "tp_blocks", "kernel_size")
    return {**{name: ENCODER_CONF[name] for name in names}, "vocab_size": CTC_SIZE}


def _write_sensevoice_config(folder: Path) -> None:
    conf = "\n".join(f"    {key}: {json.dumps(value)}" for key, value in ENCODER_CONF.items())
    (folder / "config.yaml").write_text(
        f"encoder: SenseVoiceEncoderSmall\nencoder_conf:\n{conf}\n\nmodel: SenseVoiceSmall\n"
        "frontend: WavFrontend\nfrontend_conf:\n    fs: 16000\n    window: hamming\n    n_mels: 80\n"
        "    frame_length: 25\n    frame_shift: 10\n    lfr_m: 7\n    lfr_n: 6\n    cmvn_file: null\n",
        encoding="utf-8",
    )
    _write_json(folder / "configuration.json", {"framework": "pytorch", "task": "auto-speech-recognition"})
    numbers = torch.rand(2, 560)
    shift = " ".join(f"{-8 - value:.6f}" for value in numbers[0].tolist())
    scale = " ".join(f"{0.1 + 0.1 * value:.6f}" for value in numbers[1].tolist())
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 560 560\n[ 0 ]\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )


def _write_shards(folder: Path, weights: dict[str, Tensor], shards: int = 2) -> None:
    keys = list(weights)
    per_shard = -(-len(keys) // shards)
    index: dict[str, str] = {}
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: weights[key].contiguous() for key in keys[i * per_shard : (i + 1) * per_shard]}
        save_file(part, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for hub_id, folder in make_lookalikes(Path(sys.argv[1])).items():
        print(f"{hub_id}: {folder}")
