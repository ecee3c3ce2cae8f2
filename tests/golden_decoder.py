"""Opens a recorded ``decoder_X`` folder: a tiny flow decoder and vocoder with well-scaled random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from vita.speech.flow_decoder import FlowConfig, FlowDecoder
from vita.speech.hift import HiFT, HiFTConfig, fuse_weight_norm
from vita.weights import load_strictly, read_weights

FIXTURE = Path(__file__).parent / "fixtures" / "golden" / "decoder_a"


@cache
def golden_decoder(folder: Path = FIXTURE) -> tuple[FlowDecoder, HiFT]:
    config = json.loads((folder / "config.json").read_text())
    hift_config = HiFTConfig.from_dict(config["hift"])
    flow = FlowDecoder(FlowConfig.from_dict(config["flow"]), hift_config.sampling_rate, hift_config.hop)
    hift = HiFT(hift_config)
    load_strictly(flow, read_weights(folder / "flow.safetensors"), folder / "flow.safetensors")
    load_strictly(hift, fuse_weight_norm(read_weights(folder / "hift.safetensors")), folder / "hift.safetensors")
    return flow.eval(), hift.eval()
