from __future__ import annotations

import pytest

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.settings import with_settings
from storm_edge.runtime.errors import UsageError


def test_settings_change_what_they_name_and_nothing_else() -> None:
    mini = preset("storm-mini")
    settings = ["temporal.num_layers=1", "llm.num_attention_heads=8", "dtype=float16", "temporal.dt_rank=auto"]
    settings += ["reduction.newline_token=true", "llm.rms_norm_eps=1e-5", "temporal.num_layers=3"]
    changed = with_settings(mini, settings)
    expected = mini.model_dump()
    expected["temporal"]["num_layers"] = 3
    expected["llm"] |= {"num_attention_heads": 8, "rms_norm_eps": 1e-5}
    expected["reduction"]["newline_token"] = True
    assert changed.model_dump() == expected | {"dtype": "float16"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("temporal.num_layer=1", "no 'temporal.num_layer', the nearest is temporal.num_layers"),
        ("vocab=1", "the nearest is llm.vocab_size"),
        ("llm=1", "no 'llm', the nearest is"),
        ("temporal.num_layers", "give a key and a value"),
        ("temporal.num_layers=many", r"temporal\.num_layers: Input should be a valid integer"),
        ("llm.hidden_size=100000000", r"llm\.hidden_size: Input should be less than"),
        ("llm.num_attention_heads=3", "not a multiple of num_attention_heads 3"),
        ("dtype=float8", "dtype: Input should be"),
    ],
)
def test_what_cannot_be_set_is_refused_in_one_line(setting: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as e:
        with_settings(preset("storm-mini"), [setting])
    assert "\n" not in str(e.value)
