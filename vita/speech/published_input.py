"""How the published models hear: speech tokens (Boost, Balance) or SenseVoice rows (Plus)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vita.speech.glm4voice_tokenizer import Glm4VoiceTokenizer
from vita.speech.parts import HeardAudio
from vita.speech.sensevoice_frontend import SenseVoiceFrontend
from vita.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vita.model.causal_lm import VitaAudioForCausalLM


class Glm4VoiceInput:
    """Ears of Boost and Balance: a recording is its speech tokens, 12.5 per second."""

    sample_rate = 16_000
    max_seconds = 300.0
    """3750 tokens: about half of the 8192 the models were trained on."""
    channel = "first"
    takes_voice_prompts = True

    def __init__(self, tokenizer: Glm4VoiceTokenizer, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    def hear(self, samples: np.ndarray) -> HeardAudio:
        vocabulary = self._vocabulary
        codes = self._tokenizer.encode(samples, self.sample_rate)
        ids = [vocabulary.begin_of_audio, *map(vocabulary.audio_id, codes), vocabulary.end_of_audio]
        return HeardAudio(ids, len(samples) / self.sample_rate)


class SenseVoiceInput:
    """Ears of the Plus models: a recording is one row per 60 ms and four more, computed by the model's encoder."""

    sample_rate = 16_000
    max_seconds = 120.0
    """The encoder has positions for 2048 frames of 60 ms."""
    channel = "mean"
    takes_voice_prompts = False

    def __init__(self, model: VitaAudioForCausalLM, vocabulary: Vocabulary, frontend: SenseVoiceFrontend) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._frontend = frontend

    @torch.inference_mode()
    def hear(self, samples: np.ndarray) -> HeardAudio:
        weight = self._model.model.audio_model.embed.weight
        features = self._frontend(samples)[None].to(weight.device, weight.dtype)
        rows = self._model.encode_audio(features, torch.tensor([features.shape[1]], device=weight.device))[0]
        vocabulary = self._vocabulary
        ids = [vocabulary.begin_of_audio, *[vocabulary.context_of_audio] * len(rows), vocabulary.end_of_audio]
        return HeardAudio(ids, len(samples) / self.sample_rate, rows)
