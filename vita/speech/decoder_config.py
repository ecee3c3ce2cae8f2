"""Reads the published ``config.yaml`` of the GLM-4-Voice decoder without running any of it.

The file is HyperPyYAML, a dialect whose tags construct objects and call functions (``!new:``, ``!apply:``).
Here a tag only marks a place: the arguments below it are kept, ``!ref <name>`` is looked up, nothing is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from vita.errors import CheckpointError

_REFERENCE = re.compile(r"<([^<>]+)>")


class _ArgumentLoader(yaml.SafeLoader):
    """A safe loader for which an unknown tag is no more than a label."""


def _keep_arguments(loader: _ArgumentLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    text = loader.construct_scalar(node)
    return _Reference(text) if suffix.startswith("ref") else text


class _Reference(str):
    """The text of a ``!ref``, e.g. ``<sample_rate>``."""


_ArgumentLoader.add_multi_constructor("!", _keep_arguments)


def read_decoder_config(folder: str | Path) -> dict[str, Mapping]:
    """Sections ``flow`` and ``hift`` of ``config.yaml`` as nested constructor arguments.

    Raises:
        CheckpointError: the file is missing, not YAML, or lacks a section.
    """
    path = Path(folder) / "config.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_ArgumentLoader)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; download the decoder again.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} is not valid YAML ({reason}); download it again.") from error
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), Mapping) for key in ("flow", "hift")):
        raise CheckpointError(f"{path} has no sections flow and hift; it is not a GLM-4-Voice decoder.")
    resolved = _resolve(content, content)
    return {"flow": resolved["flow"], "hift": resolved["hift"]}


def _resolve(value: object, names: Mapping) -> object:
    if isinstance(value, _Reference):
        match = _REFERENCE.fullmatch(value.strip())
        # Arithmetic on references does not occur in the sections that are read.
        return _resolve(names.get(match.group(1)), names) if match else None
    if isinstance(value, Mapping):
        return {key: _resolve(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, names) for item in value]
    return value
