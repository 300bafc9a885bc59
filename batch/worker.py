"""A process that answers: items in, rows out, over the connection whose descriptor it is given.

    python -m storm_edge.batch.worker DESCRIPTOR

The next item's frames are decoded while the model answers about this one's. The process ends with its parent.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

from storm_edge.batch.decoding import Clip, Decoder
from storm_edge.batch.predictor import Asking, Predictor
from storm_edge.runtime.errors import StormError

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the parent closes the connection."""
    connection = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent, asking = connection.recv()
    if os.getppid() != parent:  # it went while this began
        return
    assert isinstance(asking, Asking)
    try:
        predictor = Predictor.of(asking)
    except StormError as e:
        connection.send(e)
        return
    connection.send(None)
    clips: queue.Queue[Clip | None] = queue.Queue()
    decoder = Decoder(predictor.looking)
    threading.Thread(target=_receive, args=(connection, decoder, clips), daemon=True).start()
    while clip := clips.get():
        rows = predictor.answer(clip.item, clip)
        clip.drop()
        try:
            connection.send([row.decoded_in(clip.seconds) for row in rows[:1]] + rows[1:])
        except OSError:
            return


def _receive(connection: Connection, decoder: Decoder, clips: queue.Queue[Clip | None]) -> None:
    """Have every item decoded as soon as it comes; None is the end."""
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            clips.put(None)
            return
        clips.put(decoder.begin(item))


if __name__ == "__main__":
    main()
