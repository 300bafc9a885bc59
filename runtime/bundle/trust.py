"""Whether an engine was built by this user on this machine.

A bundle from somebody else may hold engines too, and their records may say anything: verified, new, for this target.
What a build publishes is sealed with a secret of the user's that lies outside the bundle, and only engines with a seal
that fits are chosen or loaded, unless the user says otherwise.
"""

from __future__ import annotations

import hashlib
import hmac

from storm_edge.runtime.bundle.engine import EngineRecord, build_again, built_at, engine_names, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.errors import EngineError, StormError
from storm_edge.runtime.machine.user_folders import user_key


def sealed(record: EngineRecord) -> EngineRecord:
    """The record with this user's seal; without one where the secret cannot be kept on this machine."""
    try:
        return record.model_copy(update={"seal": _seal(record)})
    except OSError:
        return record.model_copy(update={"seal": ""})


def is_ours(record: EngineRecord) -> bool:
    """Whether this user built the engine on this machine, and its record is as the build left it."""
    try:
        return bool(record.seal) and hmac.compare_digest(record.seal, _seal(record))
    except (OSError, TypeError):  # no secret here; a seal that is no ASCII
        return False


def require_ours(bundle: Bundle, record: EngineRecord, trust: bool = False) -> EngineRecord:
    """The record, of an engine of this user's or, with `trust`, of anybody's; raises EngineError."""
    if trust or is_ours(record):
        return record
    raise EngineError(
        f"engine {record.name} of {bundle.root} was not built by you on this machine: build it again with"
        f" `{build_again(bundle, record)}`, or add --trust-engines if you know who built it."
    )


def choose_engine(bundle: Bundle, name: str | None, targets: tuple[str, ...], trust: bool = False) -> EngineRecord:
    """The named engine, or else the newest verified one whose target is among `targets`.

    Engines of others count with `trust` only. One that cannot be read does not keep another from being chosen. Raises
    EngineError; UsageError for an unknown name.
    """
    if name is not None:
        return require_ours(bundle, read_engine(bundle, name), trust)
    found: list[EngineRecord] = []
    problem = ""
    for known in engine_names(bundle):
        try:
            found.append(read_engine(bundle, known))
        except StormError as e:
            problem = problem or f"; {e}"
    fitting = [e for e in found if e.verified and e.state == "built" and not e.simulated and e.target in targets]
    usable = [e for e in fitting if trust or is_ours(e)]
    if not usable:
        have = f"its engines are {', '.join(e.name for e in found)}" if found else "it has no engines"
        if fitting:
            have = (
                f"{', '.join(e.name for e in fitting)} was not built by you on this machine (--trust-engines takes it)"
            )
        raise EngineError(
            f"{bundle.root} has no verified engine for this machine ({have}{problem}):"
            f" make one with `storm build {bundle.root} --target {targets[0]}`."
        )
    return max(usable, key=built_at)


def _seal(record: EngineRecord) -> str:
    content = to_json(record.model_copy(update={"seal": ""})).encode()
    return hmac.new(user_key(), content, hashlib.sha256).hexdigest()
