"""What TensorRT calls while it builds: a logger, a progress monitor, and the writer that takes the engine.

Classes of whichever package was asked for, so they are made by functions. They run inside a builder, in threads of its
own, and may not raise.
"""

from __future__ import annotations

from typing import IO, Any

# The builder's list of an engine's layers begins with this word; TensorRT for RTX prints it, without a GPU too.
_LISTING = "Layers:"
# The memory that an engine's context takes, of the largest of its profiles.
_ACTIVATIONS = "Total Activation Memory: "


def make_logger(trt: Any) -> Any:
    """A logger that keeps warnings and errors, the list of layers, and the bytes of activations."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of whichever package was asked for
        """Keeps what the builder says."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []
            self.layers = ""
            self.activation_bytes = 0

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT."""
            if severity <= trt.ILogger.WARNING:
                self.messages.append(message)
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)
            if message.startswith(_LISTING):
                self.layers = message
            if message.startswith(_ACTIVATIONS):
                number = message.removeprefix(_ACTIVATIONS).split()[0]
                self.activation_bytes = max(self.activation_bytes, int(number) if number.isdigit() else 0)

    return Logger()


def make_monitor(trt: Any) -> Any:
    """A progress monitor that prints every phase once."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Prints every phase once."""

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            """Called by TensorRT."""
            print(name, flush=True)

        def step_complete(self, name: str, step: int) -> bool:
            """Called by TensorRT; True goes on."""
            return True

        def phase_finish(self, name: str) -> None:
            """Called by TensorRT."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

    return Monitor()


def make_writer(trt: Any, file: IO[bytes]) -> Any:
    """A stream writer into `file`; `failed` holds the error that ended it, or None."""

    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        """Takes the engine piece by piece."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.failed: OSError | None = None

        def write(self, data: bytes) -> int:
            """Called by TensorRT; fewer bytes than given end the build."""
            try:
                return file.write(data)
            except OSError as e:
                self.failed = e
                return 0

    return Writer()
