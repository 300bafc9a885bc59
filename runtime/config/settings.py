"""Changing a configuration by settings such as `temporal.num_layers=1`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import UsageError


def with_settings(config: StormConfig, settings: Iterable[str]) -> StormConfig:
    """`config` with every `key=value` of `settings`, later ones winning; keys are config.json's, joined by dots.

    A value is JSON, or text where it is no JSON. Raises UsageError for another form, a key that does not exist, and a
    value that the schema refuses.
    """
    data = config.model_dump()
    known = list(_keys(data))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: give a key and a value like temporal.num_layers=1.")
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UsageError(f"--set {setting}: config.json has no {key!r}, the nearest is {near}.")
        *sections, name = key.split(".")
        place = data
        for section in sections:
            place = place[section]
        place[name] = _value(text)
    return parse_config(data, "the preset with --set", UsageError)


def _keys(data: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
