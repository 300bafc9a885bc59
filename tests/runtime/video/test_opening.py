"""Files that would fill the memory are refused before room is made for their frames."""

import struct
import subprocess
import sys
import zlib

import pytest

READ = """
import re, sys
from pathlib import Path
from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video import read_frames
try:
    for batch in read_frames(sys.argv[1], size=64, frames=2):
        print(batch.frames.shape)
except VideoError as error:
    print(error)
# Of the resource module's figure a child inherits its parent's.
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def read(path):
    """What is printed, and the most memory it took, in MiB."""
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said, peak = done.stdout.strip().rsplit("\n", 1)
    return said, int(peak) / 1024


def png(path, width, height, *, still=True):
    """A grey PNG, or an APNG of three such pictures, of one colour."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    if still:
        path.write_bytes(head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
        return path
    control = [chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, width, height, 0, 0, 1, 10, 0, 0)) for n in (0, 1, 3)]
    later = [chunk(b"fdAT", struct.pack(">I", n) + rows) for n in (2, 4)]
    body = control[0] + chunk(b"IDAT", rows) + control[1] + later[0] + control[2] + later[1]
    path.write_bytes(head + chunk(b"acTL", struct.pack(">II", 3, 0)) + body + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("side", [9_000, 30_000])
@pytest.mark.parametrize("still", [True, False], ids=["png", "apng"])
def test_a_small_file_of_a_huge_image_is_refused_within_the_memory_of_a_small_one(tmp_path, side, still):
    said, peak = read(png(tmp_path / f"a.{'png' if still else 'apng'}", side, side, still=still))
    assert "larger than 67,108,864 pixels" in said
    assert peak < 150


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_claims_to_be_huge_is_refused(tmp_path, media, progressive):
    path = tmp_path / "a.jpg"
    media.write(path, media.pattern(1), "mjpeg", pixels="yuvj420p", container="image2pipe")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, 65_000, 65_000)
    if progressive:
        data[at + 1] = 0xC2
    path.write_bytes(data)
    said, peak = read(path)
    assert "larger than 67,108,864 pixels" in said
    assert peak < 150


def test_a_video_that_claims_to_be_huge_is_refused(tmp_path, media):
    path = media.write(tmp_path / "a.avi", media.pattern(3), "mjpeg", pixels="yuvj420p")
    data = path.read_bytes()
    sof = b"\xff\xc0\x00\x11\x08"
    huge = data.replace(sof + struct.pack(">HH", 48, 64), sof + struct.pack(">HH", 8_000, 8_000))
    assert huge != data
    size = struct.pack("<ii", 64, 48)
    path.write_bytes(huge.replace(size, struct.pack("<ii", 8_000, 8_000)))
    said, peak = read(path)
    assert "have 64,000,000 pixels: scale it to at most 35,389,440" in said
    assert peak < 150


def test_the_largest_image_that_is_taken_is_read_in_bounded_memory(tmp_path):
    said, peak = read(png(tmp_path / "a.png", 8192, 8192))
    assert said == "(2, 64, 64, 3)"
    assert peak < 1500
