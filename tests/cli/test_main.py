from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from edge_ad import __version__
from edge_ad.cli import doctor
from edge_ad.cli.cameras import SOURCES
from edge_ad.cli.common import cli_errors, echo_json, plain, progress, progress_line
from edge_ad.cli.main import COMMANDS, main
from edge_ad.errors import EdgeAdError

EDGE_AD = [sys.executable, "-m", "edge_ad.cli.main"]


def command_that(action: Callable[[], object]) -> click.Command:
    @click.command()
    @cli_errors
    def command(as_json: bool) -> None:
        action()

    return command


def fail(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EdgeAdError("found", "this", "do that"), 1, "error: found; expected this; do that"),
        (EdgeAdError("two\nlines"), 1, "error: two lines"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), 1, "error: a.png: No such file or directory"),
        (OSError("odd"), 1, "error: odd"),
        (MemoryError(), 1, "error: not enough memory; free some, or make the job smaller"),
        (ValueError("x\ny"), 2, "internal error: ValueError: x y; run again with --debug and report it"),
        (KeyError(), 2, "internal error: KeyError; run again with --debug and report it"),
    ],
)
def test_an_error_is_one_line(error: Exception, code: int, line: str) -> None:
    result = CliRunner().invoke(command_that(fail(error)), [])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", line + "\n")


def test_debug_prints_the_traceback_before_the_line() -> None:
    result = CliRunner().invoke(command_that(fail(EdgeAdError("found"))), ["--debug"])
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("error: found\n")


def test_a_callback_without_as_json_is_refused() -> None:
    with pytest.raises(TypeError, match="as_json"):
        cli_errors(lambda: None)


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert __version__ in result.stdout


@pytest.mark.parametrize(("typed", "meant"), [("evalute", "evaluate"), ("exprot", "export"), ("camera", "cameras")])
def test_a_typing_error_is_told_what_was_meant(typed: str, meant: str) -> None:
    result = CliRunner().invoke(main, [typed])
    assert result.exit_code == 2
    assert f"did you mean '{meant}'?" in result.stderr


def test_an_unknown_command_names_the_help() -> None:
    result = CliRunner().invoke(main, ["zzzzz"])
    assert result.exit_code == 2
    assert "no command 'zzzzz'; run: edge-ad --help" in result.stderr


def test_help_lists_every_command_with_one_sentence() -> None:
    lines = CliRunner().invoke(main, ["--help"], terminal_width=110).stdout.splitlines()
    for name, (_, text) in COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(text) for line in lines), name


def test_a_closed_pipe_is_silent() -> None:
    # A reader that is gone before the first byte, and more output than any buffer holds.
    code = "from edge_ad.cli import doctor; from edge_ad.cli.main import main\n"
    code += "doctor.examine = lambda: {'x': 'y' * 1_000_000}\nmain(['doctor', '--json'], prog_name='edge-ad')"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


def test_a_small_answer_into_a_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*EDGE_AD, "cameras"], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_no_stdout_at_all_is_no_error(closed: str) -> None:
    shell = f"exec {' '.join(EDGE_AD)} cameras {closed}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_its_code(encoding: str) -> None:
    code = (
        "import click\nfrom edge_ad.cli import doctor\nfrom edge_ad.cli.main import main\n"
        "doctor._print = lambda report: click.echo('5 mm\\u00b2 \\u4e2d \\udcff')\n"
        "main(['doctor'], prog_name='edge-ad')"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"5 mm")
    # click writes UTF-8 where the terminal claims ASCII, with a question mark for what is no text.
    assert done.stdout.rstrip().endswith(b"?" if encoding == "ascii" else b"\\udcff")


def test_ctrl_c_is_one_line_and_130() -> None:
    code = (
        "import time\nfrom edge_ad.cli import doctor\nfrom edge_ad.cli.main import main\n"
        "def wait():\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "doctor.examine = wait\nmain(['doctor'], prog_name='edge-ad')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == b"interrupted"


def test_a_command_module_that_fails_to_import_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "broken", ("no_such_module", "Broken."))
    result = CliRunner().invoke(main, ["broken"])
    assert result.exit_code == 2
    assert result.stderr.startswith("internal error: ModuleNotFoundError")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        ({"a": float("nan"), 1: float("inf")}, {"a": None, "1": None}),
        (np.array([1.0, np.nan]), [1.0, None]),
        ((Path("a/b"), True, None), ["a/b", True, None]),
    ],
)
def test_plain_gives_json_types(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_echo_json_is_ascii_and_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"area": "mm\u00b2", "score": float("nan")})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"area": "mm\u00b2", "score": None}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_yields_everything_and_ends_with_one_line() -> None:
    stream = io.StringIO()
    assert list(progress(range(1000), label="fit", stream=stream)) == list(range(1000))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1, "quick work: the last line alone"
    assert lines[0].startswith("fit [########################] 1000/1000 100 %")


def test_progress_on_a_terminal_keeps_one_line() -> None:
    stream = Terminal()
    list(progress(iter("abc"), total=3, label="fit", stream=stream))
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().startswith("\rfit [")


def test_progress_left_early_says_where() -> None:
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        for i in progress(range(10), stream=stream):
            1 / (4 - i)  # noqa: B018
    assert " 4/10 " in stream.getvalue()


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (5, 10, 60.0, "x [############            ] 5/10  50 % 1 min 00 s, 1 min 00 s left"),
        (7, None, 3.2, "x 7 3 s"),
        (10, 10, 7265.0, "x [########################] 10/10 100 % 2 h 01 min"),
    ],
)
def test_progress_line(done: int, total: int | None, seconds: float, line: str) -> None:
    assert progress_line("x", done, total, seconds) == line


def test_doctor_json_is_whole() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["edge_ad"] == __version__
    assert report["cpu"]["usable_cores"] >= 1
    assert {p["package"] for p in report["packages"]} >= {"numpy", "torch", "tensorrt", "pyrealsense2"}
    numpy_row = next(p for p in report["packages"] if p["package"] == "numpy")
    assert numpy_row["version"] == np.__version__


def test_doctor_in_words_names_every_package_and_job() -> None:
    text = CliRunner().invoke(main, ["doctor"]).stdout
    for name, _, _ in doctor.PACKAGES:
        assert name in text
    for job, _, _ in doctor.JOBS:
        assert job in text


@pytest.mark.parametrize("job", [job for job, needs, _ in doctor.JOBS if needs])
def test_doctor_names_the_remedy_for_each_job(job: str) -> None:
    extra = next(extra for name, _, extra in doctor.JOBS if name == job)
    row = next(row for row in doctor.jobs([]) if row["job"] == job)
    assert not row["ready"]
    assert row["remedy"] == (f"pip install 'edge-ad[{extra}]'" if extra else "pip install edge-ad")


@pytest.mark.parametrize(
    ("version", "capability", "warned"),
    [
        ("10.3.0.26", "8.7", True),
        ("10.4.0", "8.9", True),
        ("10.7.0.23", "8.7", False),
        ("10.7.0.23", "12.0", True),
        ("10.16.1", "12.0", True),
        ("10.16.2.1", "12.0", False),
        ("11.4.0.106", "12.0", False),
    ],
)
def test_doctor_knows_bad_tensorrt_versions(version: str, capability: str, warned: bool) -> None:
    lines = doctor.warnings({"tensorrt": version}, [capability], (3, 11))
    assert any(line.startswith(f"tensorrt {version}") for line in lines) is warned


def test_doctor_warns_of_an_unsupported_python() -> None:
    assert any("3.10 to 3.12" in line for line in doctor.warnings({}, [], (3, 13)))


def test_packages_and_extras_agree_with_the_project_file() -> None:
    """Every package that doctor names stands in pyproject.toml under the extra that it says brings it."""
    text = (Path(doctor.__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for package, _, extra in doctor.PACKAGES:
        block = "dependencies = [" if not extra else f"\n{extra} = ["
        listed = text[text.index(block) :].partition("]\n")[0]
        assert f'"{package}' in listed, f"{package}: not in {block}"


@pytest.mark.parametrize("uri", [source.uri for source in SOURCES])
def test_every_listed_camera_is_one_that_opens(uri: str, tmp_path: Path) -> None:
    """The scheme is known: what is refused is the missing folder or class, not the scheme."""
    from edge_ad.sensors import open_camera

    scheme = uri.partition(":")[0]
    with pytest.raises(EdgeAdError) as told, open_camera(f"{scheme}:{tmp_path / 'missing'}") as camera:
        next(iter(camera))
    with pytest.raises(EdgeAdError) as unknown, open_camera("nonsense:x") as camera:
        next(iter(camera))
    assert str(told.value) != str(unknown.value)
    assert "missing" in str(told.value) or "is not installed" in str(told.value)
    assert "nonsense" in str(unknown.value)
