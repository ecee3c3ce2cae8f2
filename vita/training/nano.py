"""The recipe of nano, from nothing to a checkpoint folder, in one resumable command:

    python -m vita.training.nano --out runs/train/nano --export runs/train/nano/checkpoint

Corpus -> codec -> encoder warm-up -> the four published stages in miniature (paper, section 4):
1 alignment, 2 first MCTP module, 3 all MCTP modules, 4 fine-tuning. Every part is kept in ``--out``
and skipped when it is done; an interrupted part resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast

from vita.model.causal_lm import VitaAudioForCausalLM
from vita.model.config import VitaAudioConfig
from vita.model.nano_audio_encoder import NanoAudioEncoder, NanoAudioEncoderConfig
from vita.prompts import persona
from vita.speech.nano_vocoder import FrameDecoder, NanoVocoder
from vita.training import corpus as corpora
from vita.training.feed import SpokenCorpus
from vita.training.loop import StageConfig
from vita.training.samples import SampleMaker
from vita.training.stage_codec import analyse_corpus, encode_corpus, fit_codebook, train_decoder
from vita.training.stage_encoder import train_encoder
from vita.training.stage_language import mctp_prefixes, start_first_mctp, start_other_mctp, train_language
from vita.training.text_tokenizer import build_tokenizer
from vita.vocabulary import Vocabulary

SYSTEM = persona("Nano", "female")
MCTP_MODULES = 10
MAIN_LAYERS = 5
INPUT_SHARDS, CANONICAL_SHARDS = 40, 10

ENCODER = StageConfig("encoder", 2800, {"": 1.5e-3}, warmup=0.04, options={"batch": 16}, save_every=100)
VOCODER = StageConfig(
    "vocoder", 1500, {"": 1e-3, "decoder.codebook": 2e-4}, options={"batch": 8, "tokens": 12}, save_every=100
)

# Spoken questions already belong to stage 1: at this size a stage with ten MCTP losses sees too few
# examples to learn the world in it (the published recipe keeps them for stage 4).
# Half of it is answered in text alone: facts are learned from text within minutes, and listening is learned
# twice as fast where no audio tokens compete for the gradient (docs/LOG.md).
ALIGNMENT_MIX = {
    "ask_written": 0.38,
    "type_written": 0.15,
    "asr": 0.18,
    "ask": 0.15,
    "tts": 0.05,
    "type": 0.04,
    "follow_up": 0.04,
    "noise": 0.01,
}
SPOKEN_MIX = {"ask": 0.58, "asr": 0.12, "tts": 0.12, "type": 0.08, "follow_up": 0.08, "noise": 0.02}


def model_config(vocabulary: Vocabulary) -> VitaAudioConfig:
    return VitaAudioConfig(
        vocab_size=-(-len(vocabulary) // 8) * 8,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=MAIN_LAYERS + MCTP_MODULES,
        num_nextn_predict_layers=MCTP_MODULES,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
        eos_token_id=vocabulary.im_end,
        pad_token_id=0,
        bos_token_id=None,
        audio_encoder=NanoAudioEncoderConfig().to_dict(),
    )


def language_stages(model: VitaAudioForCausalLM) -> list[StageConfig]:
    """Stages 1-4. Learning rates: the backbone's as measured to be stable at this size, MCTP as published (1e-3)."""
    main = {"": 1e-3, "model.audio_model": 6e-4} | dict.fromkeys(mctp_prefixes(model, range(MCTP_MODULES)), 0.0)
    first = dict.fromkeys(mctp_prefixes(model, range(1)), 1e-3)
    every = dict.fromkeys(mctp_prefixes(model, range(MCTP_MODULES)), 1e-3)
    fine = {"": 1e-4, "model.audio_model": 5e-5} | dict.fromkeys(mctp_prefixes(model, range(MCTP_MODULES)), 1e-3)
    speaking = {"ctc": 0.0, "audio_share": 1.0, "share": 0.35, "batch": 16}
    return [
        StageConfig(
            "stage1_alignment",
            3000,
            main,
            seed=1,
            save_every=100,
            options={"batch": 16, "mix": ALIGNMENT_MIX, "ctc": 0.5, "audio_share": 0.3, "levels": 0, "share": 1.0},
        ),
        StageConfig(
            "stage2_first_mctp", 200, first, seed=2, save_every=100, options=speaking | {"mix": SPOKEN_MIX, "levels": 1}
        ),
        StageConfig(
            "stage3_all_mctp",
            300,
            every,
            seed=3,
            save_every=50,
            options=speaking | {"mix": SPOKEN_MIX, "levels": MCTP_MODULES},
        ),
        StageConfig(
            "stage4_fine_tuning",
            200,
            fine,
            seed=4,
            save_every=50,
            options={
                "batch": 16,
                "mix": SPOKEN_MIX,
                "ctc": 0.1,
                "audio_share": 1.0,
                "levels": MCTP_MODULES,
                "share": 0.5,
            },
        ),
    ]


def build_codebook(spoken: SpokenCorpus, out: Path) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """The codebook and the analysed corpus it comes from, both kept in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    analysed = analyse_corpus(spoken, out / "analysed.pt")
    if not (out / "codebook.pt").exists():
        blocks = torch.cat([a["blocks"] for a in analysed]).float()
        torch.save(fit_codebook(blocks, rounds=10, seed=0), out / "codebook.pt")
    return torch.load(out / "codebook.pt", weights_only=True), analysed


def build_vocoder(out: Path, export: Path) -> None:
    """Train the vocoder of an existing codebook and write it to the checkpoint folder."""
    spoken = SpokenCorpus(out / "corpus/canonical")
    codebook, analysed = build_codebook(spoken, out / "codec")
    decoder = FrameDecoder(len(codebook))
    decoder.codebook.data.copy_(codebook)
    train_decoder(decoder, spoken, analysed, VOCODER, out / "codec/decoder")
    NanoVocoder(decoder).save_pretrained(export)


def build_language_model(out: Path, export: Path) -> None:
    """Encoder warm-up and stages 1-4, then write the model to the checkpoint folder."""
    spoken, heard = SpokenCorpus(out / "corpus/canonical"), SpokenCorpus(out / "corpus/input")
    codebook, analysed = build_codebook(spoken, out / "codec")
    codes = encode_corpus(analysed, codebook)
    tokenizer = build_tokenizer(export)
    vocabulary = Vocabulary.from_folder(export)
    maker = SampleMaker(vocabulary, SYSTEM, heard, {u.text: c for u, c in zip(spoken.utterances, codes, strict=True)})

    torch.manual_seed(0)
    encoder = NanoAudioEncoder(**NanoAudioEncoderConfig().to_dict())
    train_encoder(encoder, heard, ENCODER, out / "encoder")
    model = VitaAudioForCausalLM(model_config(vocabulary))
    model.model.audio_model.load_state_dict(encoder.state_dict())
    prepare = [lambda _: None, start_first_mctp, start_other_mctp, lambda _: None]
    for stage, initialise in zip(language_stages(model), prepare, strict=True):
        initialise(model)
        train_language(model, maker, stage, out / stage.name)
    save(model, tokenizer, export)


def run(out: Path, export: Path, part: str, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    corpora.build(out / "corpus", "canonical", CANONICAL_SHARDS)
    corpora.build(out / "corpus", "input", INPUT_SHARDS)
    if part in ("all", "vocoder"):
        build_vocoder(out, export)
    if part in ("all", "language"):
        build_language_model(out, export)


def save(model: VitaAudioForCausalLM, tokenizer: PreTrainedTokenizerFast, export: Path) -> None:
    """Write the model's part of the checkpoint folder, weights in float16."""
    model.half().save_pretrained(export)
    GenerationConfig(
        eos_token_id=model.config.eos_token_id,
        pad_token_id=0,
        do_sample=False,
        mtp_inference_mode=[1, MCTP_MODULES, 4, MCTP_MODULES],
    ).save_pretrained(export)
    tokenizer.save_pretrained(export)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/train/nano"), help="everything on the way; kept")
    parser.add_argument(
        "--export", type=Path, default=Path("runs/train/nano/checkpoint"), help="the finished checkpoint folder"
    )
    parser.add_argument(
        "--part",
        choices=("all", "language", "vocoder"),
        default="all",
        help="language and vocoder may run side by side once the corpus and the codebook exist",
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    run(args.out, args.export, args.part, args.threads)


if __name__ == "__main__":
    main()
