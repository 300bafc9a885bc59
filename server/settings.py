"""What the server was told at its start, and the limits that hold for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """One server's limits and permissions; bytes and seconds."""

    keys: tuple[str, ...] = ()  # API keys; none: everybody may ask
    media_roots: tuple[Path, ...] = ()  # folders whose files may be named by file:// URLs
    url_hosts: tuple[str, ...] = ()  # hosts from which videos are fetched
    live_sources: tuple[str, ...] = ()  # cameras, URLs, folders that may be watched, as `storm watch` takes them
    origins: tuple[str, ...] = ()  # web pages of elsewhere that may ask (CORS)
    hosts: tuple[str, ...] = ()  # names this server is called by; none: any
    max_frames: int = 256
    max_upload: int = 512 * MIB  # one uploaded file
    max_body: int = 64 * MIB  # one request with its data: URLs
    storage: int = 4096 * MIB  # all uploaded files together
    cache: int = 2048 * MIB  # visual tokens of videos that were asked about
    streams: int = 4  # live videos that are watched at a time
    queue: int = 16  # questions that wait
    parallel: int = 1  # answers at a time
    timeout: float = 120.0  # from a question's arrival to its answer's end
    decode_timeout: float = 60.0
    decode_memory: int = 2048 * MIB
    log_prompts: bool = False
