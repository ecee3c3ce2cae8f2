"""nano's codec: a codebook by k-means over 80 ms blocks, then the frame decoder by spectral losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vita.speech.features import HOP
from vita.speech.nano_codec import FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN, analyse, nearest
from vita.speech.nano_vocoder import LEAD, FrameDecoder, harmonics, interpolate_pitch, shape_and_add
from vita.training.feed import SpokenCorpus, step_rngs
from vita.training.loop import StageConfig, train_stage

CODES = 4096


def analyse_corpus(corpus: SpokenCorpus, path: Path) -> list[dict[str, Tensor]]:
    """Per utterance ``blocks [N, 208]``, ``hz [8 N]``, ``voiced [8 N]``; computed once, kept at ``path``."""
    if path.exists():
        return torch.load(path, weights_only=True)
    analysed = []
    for samples in tqdm(corpus.samples, desc="analyse", mininterval=10):
        blocks, hz, voiced = analyse(torch.from_numpy(samples.astype(np.float32) / 32768))
        analysed.append({"blocks": blocks.half(), "hz": hz, "voiced": voiced})
    torch.save(analysed, path)
    return analysed


def fit_codebook(blocks: Tensor, rounds: int, seed: int) -> Tensor:
    """Lloyd's k-means ``[n, D]`` -> ``[4096, D]``; codes that lose all their blocks restart on a random one."""
    generator = torch.Generator().manual_seed(seed)
    codebook = blocks[torch.randperm(len(blocks), generator=generator)[:CODES]].clone()
    for _ in tqdm(range(rounds), desc="codebook", mininterval=10):
        assigned = nearest(blocks, codebook)
        counts = torch.bincount(assigned, minlength=CODES)
        sums = torch.zeros_like(codebook).index_add_(0, assigned, blocks)
        codebook = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        codebook[empty] = blocks[torch.randint(len(blocks), (len(empty),), generator=generator)]
    return codebook


class DecoderTraining(nn.Module):
    """The frame decoder with its losses: pitch by regression, spectra by comparing sound."""

    def __init__(self, decoder: FrameDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, tokens: Tensor, target: Tensor, hz: Tensor, voiced: Tensor, phase: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """tokens ``[B, N]``, target ``[B, 1280 N]``, hz, voiced ``[B, 8 N]``, phase ``[B]``,
        noise ``[B, 1280 N + 160]``.

        The synthesiser runs on the true pitch: a harmonic at a slightly wrong place would be
        punished like a missing one, and the model would whisper. The predicted pitch has its own loss.
        """
        predicted, harmonic, hiss = self.decoder(self.decoder.frames(tokens))
        pitch = ((predicted.log() - hz.log()).abs() * voiced).sum() / voiced.sum().clamp(min=1)
        margin = torch.cat((hz[:, :1], hz, hz[:, -1:]), dim=1)
        source, _ = harmonics(interpolate_pitch(margin), phase)
        sound = shape_and_add(source, noise, harmonic, hiss)[:, LEAD : LEAD + target.shape[1]]
        spectral = sum(spectral_distance(sound, target, size) for size in (256, 512, 1024)) / 3
        return {"loss": spectral + pitch, "spectral": spectral, "pitch": pitch}


def spectral_distance(sound: Tensor, target: Tensor, size: int) -> Tensor:
    """Mean absolute log-magnitude difference plus spectral convergence of ``[B, n]`` signals."""
    window = torch.hann_window(size, device=sound.device)
    a, b = (
        torch.stft(x, size, size // 4, window=window, return_complex=True).abs().clamp(min=1e-5)
        for x in (sound, target)
    )
    return (a.log() - b.log()).abs().mean() + (a - b).norm() / b.norm().clamp(min=1e-5)


def train_decoder(
    decoder: FrameDecoder, corpus: SpokenCorpus, analysed: list[dict[str, Tensor]], config: StageConfig, folder: Path
) -> None:
    """Run or resume; ``config.options``: ``batch`` segments of ``tokens`` tokens per step."""
    codes = [nearest(a["blocks"].float(), decoder.codebook.detach()) for a in analysed]
    length = config.options["tokens"]
    long_enough = [i for i, c in enumerate(codes) if len(c) > length]

    def losses(step: int) -> dict[str, Tensor]:
        rng, noise = step_rngs(config.seed, step)
        rows = []
        for _ in range(config.options["batch"]):
            i = rng.choice(long_enough)
            start = rng.randrange(len(codes[i]) - length)
            frames = slice(start * FRAMES_PER_TOKEN, (start + length) * FRAMES_PER_TOKEN)
            wave = np.zeros(length * SAMPLES_PER_TOKEN, np.float32)
            part = corpus.samples[i][start * SAMPLES_PER_TOKEN : (start + length) * SAMPLES_PER_TOKEN]
            wave[: len(part)] = part / 32768
            rows.append(
                (
                    codes[i][start : start + length],
                    torch.from_numpy(wave),
                    analysed[i]["hz"][frames],
                    analysed[i]["voiced"][frames],
                )
            )
        tokens, target, hz, voiced = (torch.stack(column) for column in zip(*rows, strict=True))
        hiss = torch.from_numpy(noise.standard_normal((len(rows), target.shape[1] + HOP)).astype(np.float32))
        phase = torch.from_numpy(noise.random(len(rows)))
        return training(tokens, target, hz, voiced, phase, hiss)

    training = DecoderTraining(decoder)
    train_stage(training, losses, config, folder)


def encode_corpus(analysed: list[dict[str, Tensor]], codebook: Tensor) -> list[list[int]]:
    """Audio token indices of every utterance."""
    return [nearest(a["blocks"].float(), codebook).tolist() for a in analysed]
