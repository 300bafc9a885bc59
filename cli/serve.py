"""`storm serve`."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import click

from storm_edge.cli.ending import end_by_itself
from storm_edge.cli.options import threads_option
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress
from storm_edge.runtime.errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class Size(click.ParamType[int]):
    """Bytes: 2GiB, 500MB, 1048576."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of a size in words."""
        if isinstance(value, int):
            return value
        number = value.rstrip("BKMGibkmgI ")
        unit = value[len(number) :].strip().upper()
        try:
            size = int(float(number) * _UNITS[unit])
        except (ValueError, KeyError, OverflowError):
            size = -1
        if size < 0:
            self.fail(f"{value!r} is no size: give bytes, or a number with KiB, MiB or GiB", param, ctx)
        return size


SIZE = Size()
_SECONDS = click.FloatRange(0, 86400)


@click.command("serve")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engine", help="Engine to run; default: the newest verified one for this machine.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: one that is free.")
@click.option("--name", help="What the model is called; default: the bundle's folder.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the keys that may ask, one a line.")
@click.option("--insecure", is_flag=True, help="Listen on more than this machine without a key.")
@click.option(
    "--media-root", multiple=True, type=click.Path(path_type=Path), help="Folder of file:// URLs; repeatable."
)
@click.option("--allow-url-host", multiple=True, help="Host that videos may be fetched from; repeatable.")
@click.option("--allow-source", multiple=True, help="Camera, URL or folder that clients may watch; repeatable.")
@click.option("--streams", type=click.IntRange(0, 1000), default=4, show_default=True, help="Live videos at a time.")
@click.option("--allow-host", multiple=True, help="Name by which this server may be called; repeatable.")
@click.option("--cors-origin", multiple=True, help="Origin of web pages that may ask, e.g. https://a.org; repeatable.")
@click.option("--max-frames", type=click.IntRange(1, 100_000), default=256, show_default=True, help="Of one video.")
@click.option("--max-upload", type=SIZE, default="512MiB", show_default=True, help="Bytes of one video.")
@click.option("--storage", type=SIZE, default="4GiB", show_default=True, help="Bytes of all uploaded videos.")
@click.option("--queue", type=click.IntRange(0, 100_000), default=16, show_default=True, help="Questions that wait.")
@click.option("--parallel", type=click.IntRange(1, 256), help="Answers at a time; default: 1, or 8 with vLLM's like.")
@click.option("--cache", type=SIZE, default="2GiB", show_default=True, help="Bytes of encoded videos that are kept.")
@click.option("--timeout", type=_SECONDS, default=120.0, show_default=True, help="Seconds for a question's answer.")
@click.option("--drain", type=_SECONDS, default=3.0, show_default=True, help="Seconds for the last answers.")
@click.option("--log-prompts", is_flag=True, help="Log what is asked.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@click.option("--no-check", is_flag=True, help="Do not hash files that were not read on this machine before.")
@threads_option()
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    engine: str | None,
    host: str,
    port: int,
    name: str | None,
    api_key_file: Path | None,
    insecure: bool,
    media_root: tuple[Path, ...],
    allow_url_host: tuple[str, ...],
    allow_source: tuple[str, ...],
    streams: int,
    allow_host: tuple[str, ...],
    cors_origin: tuple[str, ...],
    max_frames: int,
    max_upload: int,
    storage: int,
    queue: int,
    parallel: int | None,
    cache: int,
    timeout: float,
    drain: float,
    log_prompts: bool,
    trust_engines: bool,
    no_check: bool,
    threads: int | None,
) -> None:
    """Answer questions about videos over HTTP, as OpenAI's clients ask them, with an engine of BUNDLE."""
    keys = _keys(api_key_file)
    local = _is_loopback(host)
    if not local and not keys and not insecure:
        raise UsageError(f"{host} is more than this machine: give --api-key-file, or --insecure to let everybody ask.")
    missing = [root for root in media_root if not root.is_dir()]
    if missing:
        raise UsageError(f"--media-root {missing[0]} is no folder: name one.")
    server = _import_server()
    from storm_edge.runtime.answer.pipeline import load
    from storm_edge.runtime.runners import RUNNERS

    bound = server.listen(host, port)
    with progress(ctx, "serve") as step:
        step("load")
        pipeline = load(
            bundle, engine, threads=threads, check=not no_check, trust_engines=trust_engines, progress=step.detail
        )
    batches = bool(RUNNERS[pipeline.engine.runners["decoder"]].language)
    settings = server.Settings(
        keys=keys,
        media_roots=media_root,
        url_hosts=allow_url_host,
        live_sources=allow_source,
        streams=streams,
        origins=cors_origin,
        hosts=(*(name.lower() for name in allow_host), host, "localhost", "127.0.0.1", "::1")
        if allow_host or (local and not keys)
        else (),
        max_frames=max_frames,
        max_upload=max_upload,
        storage=storage,
        cache=cache,
        queue=queue,
        parallel=parallel or (8 if batches else 1),
        timeout=timeout,
        log_prompts=log_prompts,
    )
    service = server.Service(pipeline, settings, name or pipeline.bundle.root.resolve().name)
    end_by_itself()
    server.run(service, bound, drain, lambda: _tell(service, bound.getsockname()[:2], bool(keys)))


def _tell(service: Any, address: tuple[str, int], with_key: bool) -> None:
    host, port = address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    key = " -H 'Authorization: Bearer KEY'" if with_key else ""
    video = '{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,'
    before = '{"messages": [{"role": "user", "content": [' + video
    after = '"}}, {"type": "text", "text": "What happens?"}]}]}'
    echo(f"serving {service.model} with engine {service.scheduler.engine.name} at {url}")
    echo(
        f"ask: (printf '{before}'; base64 -w0 clip.mp4; printf '{after}') |"
        f" curl{key} {url}/v1/chat/completions -H 'Content-Type: application/json' -d @-"
    )


def _keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        keys = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"--api-key-file {path} cannot be read ({e}): give a text file, one key a line.") from e
    short = [key for key in keys if len(key) < 16]
    if not keys or short:
        raise UsageError(
            f"--api-key-file {path} has {'a key of under 16 characters' if short else 'no key'}:"
            " make one with `openssl rand -hex 32`."
        )
    return keys


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _import_server() -> Any:
    try:
        import storm_edge.server.run
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("storm_edge"):
            raise
        raise UsageError(f"the server needs {e.name}: pip install 'storm-edge[serve]'.") from e
    return storm_edge.server.run
