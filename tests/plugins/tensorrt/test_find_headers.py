"""find_headers.cmake on folders that look like TensorRT's, and where there is none: it needs no compiler."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "plugins" / "tensorrt" / "find_headers.cmake"
CMAKE = shutil.which("cmake", path=sysconfig.get_path("scripts")) or shutil.which("cmake")
pytestmark = pytest.mark.skipif(CMAKE is None, reason="no CMake: pip install cmake")

UNTIL_10_10 = "#define NV_TENSORRT_MAJOR {} //!< TensorRT major version.\n#define NV_TENSORRT_MINOR {} //!< Minor.\n"
SINCE_10_11 = (
    "#define TRT_MAJOR_ENTERPRISE {}\n#define TRT_MINOR_ENTERPRISE {}\n"
    "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE\n"
)


@pytest.fixture
def find(tmp_path, monkeypatch):
    """find(**definitions): the include folder, the version, and what is lacking."""
    monkeypatch.delenv("TENSORRT_ROOT", raising=False)
    report = tmp_path / "report.cmake"
    report.write_text(
        f'include("{SCRIPT}")\n'
        'message("${STORM_TENSORRT_INCLUDE}|${STORM_TENSORRT_VERSION}|${STORM_TENSORRT_LACKS}")\n'
    )

    def run(**definitions):
        given = [f"-D{name}={value}" for name, value in definitions.items()]
        command = [CMAKE, *given, "-P", str(report)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        folder, version, lacks = done.stderr.splitlines()[-1].split("|")
        return folder.rstrip("/"), version, lacks

    return run


@pytest.fixture
def tensorrt(tmp_path):
    """tensorrt(version header): a folder as TensorRT's archive unpacks to."""

    def make(header):
        include = tmp_path / "TensorRT" / "include"
        include.mkdir(parents=True)
        (include / "NvInferRuntime.h").touch()
        (include / "NvInferVersion.h").write_text(header)
        return include.parent

    return make


@pytest.mark.parametrize(
    ("form", "major", "minor"),
    [(UNTIL_10_10, 10, 3), (UNTIL_10_10, 10, 7), (SINCE_10_11, 10, 16), (SINCE_10_11, 11, 1)],
)
def test_the_version_is_read_in_the_forms_of_every_release(form, major, minor, find, tensorrt):
    root = tensorrt(form.format(major, minor))
    assert find(TENSORRT_ROOT=root) == (str(root / "include"), f"{major}.{minor}", "")


def test_tensorrt_root_may_come_from_the_environment(find, tensorrt, monkeypatch):
    root = tensorrt(SINCE_10_11.format(10, 16))
    monkeypatch.setenv("TENSORRT_ROOT", str(root))
    assert find()[:2] == (str(root / "include"), "10.16")


def test_a_tensorrt_that_is_too_old_is_refused_with_its_version(find, tensorrt):
    root = tensorrt(UNTIL_10_10.format(8, 6))
    assert find(TENSORRT_ROOT=root)[2] == "TensorRT 8.6 is too old: 10.3 or newer is needed"


def test_a_version_that_cannot_be_read_says_so(find, tensorrt):
    assert find(TENSORRT_ROOT=tensorrt("// nothing\n"))[2].startswith("cannot read TensorRT's version from ")


def test_a_root_without_headers_is_refused_by_name(find, tmp_path):
    lacks = find(TENSORRT_ROOT=tmp_path)[2]
    assert lacks.startswith(f"there is no include/NvInferRuntime.h in TENSORRT_ROOT={tmp_path}")


def test_headers_that_cannot_be_fetched_leave_a_line_that_says_what_to_do(find, monkeypatch):
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "none")  # git refuses before it asks the network
    folder, version, lacks = find(STORM_TENSORRT_TAG="v10.7.0")
    if version:
        pytest.skip(f"TensorRT is installed: {folder}")
    assert "tag v10.7.0 of its repository could not be fetched" in lacks
    assert "set TENSORRT_ROOT to an unpacked TensorRT" in lacks
