"""A suite of ten items, a judge that reads lips, and runs that measure the scripted system."""

import json

import numpy as np
import pytest
import soundfile
from tqdm import tqdm

from eval.bench import Plan, run_bench
from eval.fake_system import FakeSystem
from eval.suites import UNSEEN_ENGINE

PARIS = "The capital of France is Paris."


def quiet(*args, **kwargs):
    return tqdm(*args, **{**kwargs, "disable": True})


class ScriptedJudge:
    """Hears one sentence whatever is played."""

    name = "scripted"

    def __init__(self, heard=PARIS):
        self.heard = heard
        self.calls = 0

    def describe(self):
        return {"judge": self.name, "version": "1", "says": self.heard}

    def transcribe(self, samples, sample_rate, grammar):
        self.calls += 1
        return self.heard


@pytest.fixture
def suite_folder(tmp_path):
    """Two subsets of spoken questions, ASR and TTS items; half of the questions are about Paris."""
    folder = tmp_path / "suite"
    (folder / "audio").mkdir(parents=True)
    rows = []
    for index in range(10):
        task = ("asr", "tts", "sqa", "sqa", "sqa")[index % 5]
        row = {"id": f"{task}-{index}", "task": task, "text": PARIS, "cluster": f"fact {index}"}
        if task != "tts":
            row["audio"] = f"audio/{index}.flac"
            row["subset"] = UNSEEN_ENGINE if index == 9 else "training-voices"
            tone = 0.1 * np.sin(np.arange(1600) * (0.1 + 0.01 * index))
            soundfile.write(folder / row["audio"], tone, 16_000, subtype="PCM_16")
        if task == "sqa":
            row["answers"] = ["Paris"] if index % 2 else ["Rome", "Roma"]
        rows.append(row)
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.json").write_text(json.dumps({"name": "tiny", "version": 1}))
    return folder


@pytest.fixture
def bench(suite_folder, tmp_path):
    """Runs the tiny suite; keyword arguments change the plan."""

    def run(system=None, judge=None, **changes):
        settings = {"model": "fake", "suite": str(suite_folder), "modes": ("vanilla", "boost"), "warmup": 0,
                    "out": tmp_path / "runs", **changes}
        return run_bench(Plan(**settings), system or FakeSystem(), judge or ScriptedJudge(), progress=quiet)

    return run
