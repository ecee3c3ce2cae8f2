"""The assistant as its callers know it: events, timing, passes, conversation, robustness."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from tests.tiny_checkpoint import AUDIO_TOKENS, make_tiny_checkpoint, scripted, spoken_answer
from vita import (
    AudioChunk,
    AudioError,
    Finished,
    ModeError,
    Sampling,
    TextDelta,
    TextInputError,
    VitaAudio,
    VitaError,
)
from vita.decoding.modes import MODES, resolve_mode
from vita.speech.nano_vocoder import NanoVocoder
from vita.vocabulary import Vocabulary

RATE = 16_000
SENTENCE = "The capital of Germany is Berlin."


@pytest.fixture(scope="module")
def vocabulary(tiny_folder) -> Vocabulary:
    return Vocabulary.from_folder(tiny_folder)


def run(events) -> tuple[str, np.ndarray, Finished]:
    """Text, speech and last event of an answer."""
    events = list(events)
    assert isinstance(events[-1], Finished)
    assert not any(isinstance(event, Finished) for event in events[:-1])
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    chunks = [event.samples for event in events if isinstance(event, AudioChunk)]
    return text, np.concatenate([np.zeros(0, np.float32), *chunks]), events[-1]


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_is_its_text_its_speech_and_a_true_account(tiny, tiny_folder, vocabulary, speech_like, mode):
    script = spoken_answer(vocabulary, SENTENCE, audio=30)
    with scripted(script) as forwards:
        text, speech, finished = run(tiny.respond(audio=(speech_like, RATE), mode=mode))
    assert text == finished.text == SENTENCE
    # Streamed speech is the speech of all audio tokens decoded at once.
    offline = NanoVocoder.from_pretrained(tiny_folder).decode([i % AUDIO_TOKENS for i in range(30)])
    np.testing.assert_allclose(speech, np.clip(offline, -1, 1), atol=2e-4)
    assert finished.audio_seconds == pytest.approx(30 * 0.08)
    assert finished.mode == mode
    assert finished.finish_reason == "eos"
    assert [token.id for token in finished.tokens] == script
    levels = MODES[mode].levels(10)
    assert [token.level for token in finished.tokens] == [next(levels) for _ in script]
    assert finished.passes["main"] == forwards.main
    assert finished.passes["mctp"] == forwards.mctp


@pytest.mark.parametrize(("mode", "expected"), [("boost", 1), ("turbo", 1), ("balance", 4), ("vanilla", 10)])
def test_main_forwards_before_the_first_audio_chunk(tiny, vocabulary, speech_like, mode, expected):
    with scripted(spoken_answer(vocabulary, SENTENCE, audio=30)) as forwards:
        for event in tiny.respond(audio=(speech_like, RATE), mode=mode):
            if isinstance(event, AudioChunk):
                break
        assert forwards.main == expected  # counted where the passes run, at the moment the chunk is handed out
    assert event.main_passes == expected
    assert len(event.samples) >= 7 * 1280 - 80  # a group of eight less the vocoder's look-ahead
    assert [token.kind for token in event.tokens] == ["audio"] * 8


def test_times_are_in_order_and_add_up(tiny, vocabulary, speech_like):
    with scripted(spoken_answer(vocabulary, SENTENCE, audio=30)):
        _, _, finished = run(tiny.respond(audio=(speech_like, RATE), mode="boost"))
    times = finished.timings
    assert 0 < times["encode"] < times["ttft"] < times["ttf_audio_token"] < times["ttfc"] < times["total"]
    work = times["encode"] + times["prefill"] + times["decode"] + times["vocode"]
    assert 0.5 * times["total"] < work <= times["total"]
    assert times["ttft"] >= times["encode"] + times["prefill"]


def test_an_answer_without_speech_is_finished_all_the_same(tiny, vocabulary):
    with scripted([*vocabulary.encode("Fifteen."), vocabulary.im_end]):
        text, speech, finished = run(tiny.respond(text="Seven plus eight?"))
    assert text == "Fifteen."
    assert len(speech) == finished.audio_seconds == 0
    assert finished.timings["ttfc"] is finished.timings["ttf_audio_token"] is None
    assert finished.passes["main_before_first_audio"] is None


def test_an_answer_without_anything(tiny, vocabulary):
    with scripted([vocabulary.im_end]):
        text, speech, finished = run(tiny.respond(text="Hello"))
    assert (text, len(speech), finished.finish_reason) == ("", 0, "eos")


def test_an_answer_cut_at_the_limit_says_so_and_loses_no_sound(tiny, vocabulary):
    script = spoken_answer(vocabulary, SENTENCE, audio=30)
    with scripted(script):
        _, speech, finished = run(tiny.respond(text="Hello", max_new_tokens=20))
    assert finished.finish_reason == "length"
    assert len(finished.tokens) == 20
    audio = sum(token.kind == "audio" for token in finished.tokens)
    assert audio % 8  # cut inside a group
    assert len(speech) == audio * 1280


def test_text_is_only_shown_in_whole_characters(tiny, vocabulary):
    answer = "Zürich, 東京 and 🙂."
    with scripted([*vocabulary.encode(answer), vocabulary.im_end]):
        deltas = [e.text for e in tiny.respond(text="Hello") if isinstance(e, TextDelta)]
    assert len(deltas) > 5
    assert "".join(deltas) == answer
    assert not any("\ufffd" in delta for delta in deltas)
    cut = vocabulary.encode("東")[:-1]
    with scripted([*vocabulary.encode("To"), *cut, vocabulary.im_end]):
        text, _, _ = run(tiny.respond(text="Hello"))
    assert text == "To"


def test_malformed_interleaving_is_understood(tiny, vocabulary):
    audio = vocabulary.audio_id
    script = [
        audio(1), audio(2), *vocabulary.encode("a"), vocabulary.end_of_audio, vocabulary.begin_of_audio,
        *[audio(i) for i in range(11)], vocabulary.begin_of_audio, *vocabulary.encode("b"), vocabulary.im_end,
    ]  # fmt: skip
    with scripted(script):
        text, speech, finished = run(tiny.respond(text="Hello"))
    assert text == "ab"
    assert len(speech) == 13 * 1280
    assert finished.finish_reason == "eos"


def test_a_closed_answer_stops_and_is_freed(tiny, vocabulary):
    with scripted(spoken_answer(vocabulary, SENTENCE, audio=30)) as forwards:
        answer = tiny.respond(text="Hello", mode="boost")
        while not isinstance(next(answer), AudioChunk):
            pass
        done = len(forwards.levels)
        assert len(forwards.streams) == 1
        answer.close()
        del answer
        gc.collect()
        assert len(forwards.streams) == 0
        assert len(forwards.levels) == done
        run(tiny.respond(text="Hello again"))  # the next request works


def test_answers_that_share_the_model_do_not_disturb_each_other(tiny, speech_like):
    def ask(n: int):
        sampling = Sampling(do_sample=True, seed=n)
        return tiny.respond(audio=(speech_like, RATE), mode="boost", sampling=sampling, max_new_tokens=40)

    alone = [[token.id for token in run(ask(n))[2].tokens] for n in range(3)]
    assert alone[0] != alone[1]  # otherwise the comparison below shows nothing

    streams = [ask(n) for n in range(3)]
    ends: dict[int, Finished] = {}
    while len(ends) < 3:
        for n, stream in enumerate(streams):
            event = next(stream, None)
            if isinstance(event, Finished):
                ends[n] = event
    assert [[token.id for token in ends[n].tokens] for n in range(3)] == alone

    together: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda n=n: together.update({n: [t.id for t in run(ask(n))[2].tokens]}))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(3)] == alone


def test_the_previous_turn_is_context_spoken_or_typed(tiny, vocabulary, speech_like):
    script = spoken_answer(vocabulary, SENTENCE, audio=12)
    with scripted(script) as forwards:
        first = run(tiny.respond(audio=(speech_like, RATE)))[2]
        second = run(tiny.respond(text="And of Italy?", history=first.history))[2]
        run(tiny.respond(text="And of Spain?", history=second.history))
    spoken, followed, third = (vocabulary.decode(ids) for ids in forwards.prompts)
    context = "<|context_of_audio|>"
    assert spoken.count(context) == -(-(len(speech_like) // 160) // 8)  # 12.5 rows per second
    assert followed.count(context) == spoken.count(context)  # the user's turn as it was: audio
    assert f"<|im_start|>assistant\n{SENTENCE}<|im_end|>" in followed  # the assistant's as text alone
    assert "<|audio_" not in followed
    assert "And of Italy?" in third
    assert context not in third  # nano remembers one turn


def test_a_new_conversation_knows_nothing_of_the_last(tiny, vocabulary):
    with scripted(spoken_answer(vocabulary, SENTENCE, audio=8)) as forwards:
        run(tiny.respond(text="First"))
        run(tiny.respond(text="Second"))
    assert "First" not in vocabulary.decode(forwards.prompts[1])


def test_the_history_of_another_model_is_refused(tiny, tmp_path, vocabulary):
    other = VitaAudio.from_pretrained(make_tiny_checkpoint(tmp_path / "other", seed=1), device="cpu")
    with scripted([vocabulary.im_end]):
        history = run(other.respond(text="Hello"))[2].history
    with pytest.raises(VitaError, match="another model"):
        tiny.respond(text="Hello", history=history)


def test_transcribe_returns_text_and_the_length_of_the_recording(tiny, vocabulary, speech_like):
    with scripted([*vocabulary.encode(" hello there"), vocabulary.im_end]) as forwards:
        transcript = tiny.transcribe((speech_like, RATE))
    assert transcript.text == "hello there"
    assert transcript.mode == "vanilla"
    assert transcript.audio_seconds == pytest.approx(1.5)
    assert transcript.passes["main"] == forwards.main == len(transcript.tokens)
    assert "Convert the speech to text.\n<|begin_of_audio|>" in vocabulary.decode(forwards.prompts[0])


def test_speak_returns_the_whole_speech(tiny, vocabulary):
    script = [
        vocabulary.begin_of_audio, *[vocabulary.audio_id(i) for i in range(20)], vocabulary.end_of_audio,
        vocabulary.im_end,
    ]  # fmt: skip
    with scripted(script) as forwards:
        speech = tiny.speak("Good morning.")
        streamed = run(tiny.speak_stream("Good morning."))[1]
    assert (speech.text, speech.sample_rate, speech.mode) == ("Good morning.", 16_000, "boost")
    assert len(speech.samples) == 20 * 1280
    assert speech.audio_seconds == pytest.approx(1.6)
    np.testing.assert_array_equal(speech.samples, streamed)
    assert "user\nConvert the text to speech.\nGood morning.<|im_end|>" in vocabulary.decode(forwards.prompts[0])


def test_sampling_is_reproducible_by_its_seed(tiny):
    def tokens(seed: int) -> list[int]:
        sampling = Sampling(do_sample=True, temperature=1.5, seed=seed)
        return [t.id for t in run(tiny.respond(text="Hello", sampling=sampling, max_new_tokens=15))[2].tokens]

    assert tokens(3) == tokens(3)
    assert tokens(3) != tokens(4)


@pytest.mark.parametrize("kind", ["noise", "clipped", "8-bit", "stereo 48 kHz", "nearly silent"])
def test_any_audible_recording_gets_an_answer(tiny, speech_like, kind):
    noise = np.random.default_rng(0).normal(0, 0.2, RATE).astype(np.float32)
    recording = {
        "noise": (noise, RATE),
        "clipped": (np.clip(speech_like * 50, -1, 1), RATE),
        "8-bit": ((speech_like * 127 + 128).astype(np.uint8), RATE),
        "stereo 48 kHz": (np.stack([noise, noise[::-1]], axis=1), 48_000),
        "nearly silent": (noise * 0.003, RATE),
    }[kind]
    run(tiny.respond(audio=recording, max_new_tokens=12))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({}, TextInputError),
        ({"text": "a", "audio": (np.ones(10), RATE)}, TextInputError),
        ({"text": ""}, TextInputError),
        ({"text": " \n\t "}, TextInputError),
        ({"text": "word " * 20_000}, TextInputError),
        ({"text": "broken \udcff"}, TextInputError),
        ({"text": 5}, TextInputError),
        ({"text": "a", "mode": "fast"}, ModeError),
        ({"text": "a", "mode": [0, 3]}, ModeError),
        ({"text": "a", "max_new_tokens": 0}, VitaError),
        ({"text": "a", "history": "yesterday"}, VitaError),
        ({"audio": (np.zeros(0, np.float32), RATE)}, AudioError),
        ({"audio": (np.zeros(RATE, np.float32), RATE)}, AudioError),
        ({"audio": (np.full(RATE, np.nan, np.float32), RATE)}, AudioError),
        ({"audio": (np.random.default_rng(0).normal(0, 0.1, 600 * RATE), RATE)}, AudioError),
        ({"audio": "no_such_file.wav"}, AudioError),
    ],
)
def test_bad_input_is_refused_at_the_call_and_the_next_request_works(tiny, request_, error):
    with pytest.raises(error) as caught:
        tiny.respond(**request_)  # not only when the events are read
    assert "\n" not in str(caught.value)
    run(tiny.respond(text="Hello", max_new_tokens=3))


def test_transcribe_and_speak_refuse_alike(tiny):
    with pytest.raises(AudioError):
        tiny.transcribe((np.zeros(0), RATE))
    with pytest.raises(ModeError):
        tiny.transcribe((np.ones(10), RATE), mode="fast")
    for text in ("", "x" * 100_000):
        with pytest.raises(TextInputError):
            tiny.speak(text)
        with pytest.raises(TextInputError):
            tiny.speak_stream(text)


def test_a_text_beyond_the_models_context_is_refused_and_a_long_history_is_dropped(tiny, vocabulary):
    with pytest.raises(TextInputError, match="shorter"):
        tiny.respond(text="東" * 700)  # three bytes each, a token each in this vocabulary
    long = "x y " * 100
    with scripted([*vocabulary.encode(long), vocabulary.im_end]) as forwards:
        history = run(tiny.respond(text="q w " * 80))[2].history
        run(tiny.respond(text="z v " * 80, history=history))
    assert "q w" not in vocabulary.decode(forwards.prompts[1])


def test_warm_up_leaves_no_trace(tiny):
    tiny.warm_up()
    assert run(tiny.respond(text="Hello", max_new_tokens=5))[2].tokens


def test_mode_lists_are_taken_and_named(tiny):
    finished = run(tiny.respond(text="Hello", mode=[1, 4, 2, 8], max_new_tokens=15))[2]
    assert finished.mode == resolve_mode([1, 4, 2, 8]).name
    assert finished.passes["main"] == 3
