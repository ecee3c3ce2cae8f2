"""The offline judge: pocketsphinx's English acoustic model held to a suite's own JSGF grammar."""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pocketsphinx

from eval.errors import EvalError
from eval.judges.grammar_automaton import minimise, read_network, to_fsg

SAMPLE_RATE = 16_000
PADDING_SECONDS = 0.2
"""Silence added on both sides: the decoder needs a few frames before the first word and after the last."""

SHORTEST_SECONDS = 0.1
QUIETEST = 1e-3
"""Peak (full scale 1) below which there is nothing to hear."""


class PocketsphinxJudge:
    """Hears only sentences of a grammar; speech outside it comes back empty or as the nearest sentence.

    Args:
        grammar: JSGF file; its public rules are the grammars `transcribe` chooses from.
        pronunciations: lines ``word PH ON ES`` (CMU phones, ``word(2)`` for another way to say it) for
            words that pocketsphinx's dictionary lacks or says differently.

    Raises:
        EvalError: a file is missing or unusable, or a word of the grammar has no pronunciation.
    """

    name = "pocketsphinx"

    def __init__(self, grammar: Path, pronunciations: Path) -> None:
        self.files = {"grammar": grammar, "pronunciations": pronunciations}
        try:
            self.hashes = {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in self.files.items()}
            entries = [line.split(maxsplit=1) for line in pronunciations.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise EvalError(f"the judge's file {error.filename} cannot be read: restore it from the repository"
                            ) from None
        pocketsphinx.set_loglevel("FATAL")
        # cmn: over the whole utterance, so that no state carries over from one item to the next. bestpath: the
        # second search over the word lattice may take minutes on noise and finds nothing better in a grammar.
        self._decoder = pocketsphinx.Decoder(
            samprate=SAMPLE_RATE, lm=None, loglevel="FATAL", cmn="batch", bestpath=False)
        for number, entry in enumerate(entries, start=1):
            self._decoder.add_word(entry[0], entry[1], number == len(entries))
        text = grammar.read_text(encoding="utf-8")
        name = re.search(r"^\s*grammar\s+(\S+?)\s*;", text, re.MULTILINE)
        self._rules = set(re.findall(r"^\s*public\s+<(\w+)>\s*=", text, re.MULTILINE))
        if name is None or not self._rules:
            raise EvalError(f"{grammar} is not a JSGF grammar with a public rule")
        self._grammar_name = name[1]
        self._jsgf = pocketsphinx.Jsgf(str(grammar))
        self._ready: set[str] = set()

    def describe(self) -> dict[str, str]:
        return {"judge": self.name, "version": version("pocketsphinx"), **self.hashes}

    def _activate(self, rule: str) -> None:
        if rule not in self._ready:
            if rule not in self._rules:  # asking pocketsphinx for an absent rule crashes the process
                raise EvalError(f"{self.files['grammar']} has no public rule <{rule}>")
            found = self._jsgf.get_rule(f"{self._grammar_name}.{rule}")
            logmath = self._decoder.logmath
            automaton = minimise(*read_network(self._jsgf, found, logmath))
            try:
                self._decoder.add_fsg(rule, to_fsg(automaton, rule, logmath, self._decoder.config["lw"]))
            except RuntimeError:
                raise EvalError(f"rule <{rule}> of {self.files['grammar']} uses words without a pronunciation: add "
                                f"them to {self.files['pronunciations']}") from None
            self._ready.add(rule)
        self._decoder.activate_search(rule)

    def transcribe(self, samples: np.ndarray, sample_rate: int, grammar: str) -> str:
        """Words heard, lower case; the grammar is named by its public rule (``answer``, ``sentence``).

        An utterance that no sentence of the grammar fits gives an empty text.
        """
        if len(samples) < SHORTEST_SECONDS * sample_rate or np.abs(samples).max() < QUIETEST:
            return ""
        wave = np.ascontiguousarray(samples, dtype=np.float32)
        if sample_rate != SAMPLE_RATE:
            import torch  # seconds to load, and speech at 16 kHz does without

            from vita.speech.features import resample

            wave = resample(torch.from_numpy(wave), sample_rate, SAMPLE_RATE).numpy()
        margin = np.zeros(int(PADDING_SECONDS * SAMPLE_RATE), dtype=np.float32)
        wave = np.concatenate([margin, wave, margin])
        self._activate(grammar)
        self._decoder.start_utt()
        self._decoder.process_raw((wave.clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return heard.hypstr if heard is not None else ""
