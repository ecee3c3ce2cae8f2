"""Which device each part of a model lives on: one device, or the main layers spread over several GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vita.errors import CheckpointError

DeviceMap = dict[str, str] | str | torch.device | None


@dataclass(frozen=True)
class Placement:
    """Devices by prefix of the parameter name; the longest matching prefix wins, "" stands for the rest."""

    devices: dict[str, torch.device]

    @classmethod
    def of(cls, device_map: DeviceMap, num_main_layers: int) -> Placement:
        """Read what a user may write: None (the CPU), a device, "auto", or a dict of prefixes to devices.

        Raises CheckpointError when it names no device or says nothing about the rest.
        """
        if device_map == "auto":
            return cls._over_all_gpus(num_main_layers)
        if not isinstance(device_map, dict):
            device_map = {"": device_map or "cpu"}
        try:
            devices = {prefix: torch.device(device) for prefix, device in device_map.items()}
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"device_map {device_map} names no device; write cpu, cuda, cuda:1 or auto."
            ) from error
        if "" not in devices:
            raise CheckpointError("device_map does not say where the rest goes; add an entry for the prefix ''.")
        return cls(devices)

    @classmethod
    def _over_all_gpus(cls, num_main_layers: int) -> Placement:
        """Main layers in equal contiguous parts; all else on the last GPU.

        What every level shares (embedding, norm, head) and the MCTP modules stay together, so that a run of
        MCTP tokens never crosses devices.
        """
        count = torch.cuda.device_count()
        if count <= 1:
            return cls({"": torch.device("cuda" if count else "cpu")})
        devices = {"": torch.device("cuda", count - 1)}
        for index in range(num_main_layers):
            devices[f"model.layers.{index}."] = torch.device("cuda", index * count // num_main_layers)
        return cls(devices)

    @property
    def on_cpu(self) -> bool:
        return all(device.type == "cpu" for device in self.devices.values())

    def device_of(self, name: str) -> torch.device:
        """The device of the parameter or module called ``name``."""
        return self.devices[max((prefix for prefix in self.devices if name.startswith(prefix)), key=len)]
