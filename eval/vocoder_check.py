"""How much speech tokens and vocoder cost: the judge hears reference speech before and after them."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from eval.errors import EvalError
from eval.metrics import METRICS
from eval.scoring import open_judge
from eval.suites import load_suite
from eval.tasks.tts import TASK


def check_vocoder(model: str, suite_name: str, limit: int | None = None) -> dict:
    """Judge WER (%) of the suite's reference readings, original and resynthesised.

    Every sentence is encoded to speech tokens and decoded again by the checkpoint's codec; no language
    model is involved.

    Raises:
        VitaError: no reference speech in the suite, or a checkpoint without encoder and vocoder of its own.
    """
    from vita.device import limit_threads
    from vita.registry import locate
    from vita.speech.nano_codec import NanoSpeechTokenizer
    from vita.speech.nano_vocoder import NanoVocoder

    limit_threads()
    suite = load_suite(suite_name)
    items = [item for item in suite.items if item.reference_audio is not None][:limit]
    if not items:
        raise EvalError(f"suite {suite.name} ships no reference speech: use --suite nano")
    vocoder = NanoVocoder.from_pretrained(locate(model))
    tokenizer = NanoSpeechTokenizer(vocoder.decoder.codebook.detach())
    judge = open_judge(suite.judge, suite.folder)
    metric = METRICS["wer[whisper-en]"]
    scores: dict[str, list[dict[str, float]]] = {"original": [], "resynthesised": []}
    for item in tqdm(items, desc="vocoder", unit="sentence"):
        samples, rate = suite.load_reference(item)
        tokens = tokenizer.encode(samples, rate)
        rebuilt = vocoder.stream().push(tokens, final=True)
        for name, wave, wave_rate in (("original", samples, rate), ("resynthesised", rebuilt, vocoder.sample_rate)):
            heard = judge.transcribe(np.asarray(wave, dtype=np.float32), wave_rate, TASK.grammar)
            scores[name].append(metric.sample(item.text, heard))
    values = {name: metric.reduce(samples) for name, samples in scores.items()}
    return {"metric": "wer[whisper-en]", "model": model, "suite": suite.name, "n": len(items), **values,
            "difference": values["resynthesised"] - values["original"], "judge": judge.describe()}
