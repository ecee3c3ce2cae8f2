"""Which device each part of a model lives on: one device, or the main layers spread over several GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vita.errors import CheckpointError
from vita.model.config import VitaAudioConfig


@dataclass(frozen=True)
class Placement:
    """Devices by parameter-name prefix; the longest matching prefix wins, "" is the rest."""

    devices: dict[str, torch.device]

    @classmethod
    def of(cls, device_map: Placement | dict[str, str] | str | torch.device | None, config: VitaAudioConfig) -> Placement:
        """A placement from what users write: None (CPU), a device, "auto", or a dict of prefixes to devices."""
        if isinstance(device_map, Placement):
            return device_map
        if device_map == "auto":
            return cls._spread(config)
        if not isinstance(device_map, dict):
            device_map = {"": device_map or "cpu"}
        try:
            devices = {prefix: torch.device(device) for prefix, device in device_map.items()}
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"device_map {device_map} names no device ({error}); write cpu, cuda or cuda:1") from error
        if "" not in devices:
            raise CheckpointError("device_map must say where the rest goes: add an entry for the empty prefix ''")
        return cls(devices)

    @classmethod
    def _spread(cls, config: VitaAudioConfig) -> Placement:
        """Main layers in equal contiguous parts over the visible GPUs.

        Everything that every level shares (embedding, norm, head) and the MCTP modules stay together on the last
        GPU, so that a run of MCTP tokens never crosses devices.
        """
        count = torch.cuda.device_count()
        if count <= 1:
            return cls({"": torch.device("cuda" if count else "cpu")})
        devices = {"": torch.device("cuda", count - 1)}
        for index in range(config.num_main_layers):
            devices[f"model.layers.{index}."] = torch.device("cuda", index * count // config.num_main_layers)
        return cls(devices)

    @property
    def on_cpu(self) -> bool:
        return all(device.type == "cpu" for device in self.devices.values())

    def device_of(self, name: str) -> torch.device:
        """The device of the parameter or module called ``name``."""
        return self.devices[max((prefix for prefix in self.devices if name.startswith(prefix)), key=len)]
