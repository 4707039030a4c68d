"""The kit for one card: what becomes of sections that fail, crash, hang or end early; what the page says of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import setuptools

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import section as section_process
from benchmarks.gpu_check.__main__ import SECTIONS
from benchmarks.gpu_check.parity import FAMILIES
from benchmarks.gpu_check.schedule import Outcome, Section, limit_of, run_sections
from benchmarks.gpu_check.setting import OutOfTime, Setting, row
from benchmarks.gpu_check.summary import summarise
from benchmarks.step_arms import STAGES
from dualmask.training.profile import covered

ROOT = Path(__file__).resolve().parents[3]

# what a section's process does: say that it is ready, wait for its limit, and then
READY = "import os, sys, time; os.close(1); limit = float(sys.stdin.readline());"
ENDINGS = {
    "good": "sys.exit(0)",
    "bad": "sys.exit(4)",
    "broken": "print('no such kernel', file=sys.stderr); sys.exit(1)",
    "killed": "os.kill(os.getpid(), 9)",
    "slow": "time.sleep(limit); sys.exit(3)",
    "hanging": (
        "import subprocess; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "open('child', 'w').write(str(p.pid)); time.sleep(600)"
    ),
}


def play(names: list[str], out: Path, seconds: float, shares: dict[str, float] | None = None) -> list[Outcome]:
    sections = [Section(name, (shares or {}).get(name, 1), name) for name in names]

    def command(name: str) -> list[str]:
        return [sys.executable, "-c", f"import os; os.chdir({str(out)!r}); {READY} {ENDINGS[name]}"]

    return list(run_sections(sections, command, seconds=seconds, out=out, environment=os.environ))


def test_no_section_costs_another_one(tmp_path: Path) -> None:
    outcomes = play(["bad", "broken", "killed", "good"], tmp_path, 60)
    assert [outcome.status for outcome in outcomes] == ["failed", "crashed", "crashed", "passed"]
    assert "no such kernel" in (tmp_path / "broken.log").read_text()
    assert "exit code -9" in outcomes[2].detail


def test_a_section_that_hangs_ends_at_its_limit_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    hanging, good = play(["hanging", "good"], tmp_path, 20, {"good": 9})
    assert (hanging.status, good.status) == ("out of time", "passed")
    assert 1 < hanging.seconds < 10
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("what it started still runs")


def test_a_section_knows_when_to_stop_by_itself(tmp_path: Path) -> None:
    (outcome,) = play(["slow"], tmp_path, 8)
    assert outcome.status == "out of time"
    assert "by itself" in outcome.detail
    assert outcome.seconds < 8


def test_what_one_does_not_need_goes_to_the_next_ones() -> None:
    sections = [Section("a", 1, ""), Section("b", 2, ""), Section("c", 1, "")]
    assert limit_of(0, sections, 100) == 25
    assert limit_of(1, sections, 99) == 66
    assert limit_of(2, sections, 90) == 90
    assert limit_of(2, sections, -3) == 0


def for_two(folder: Path) -> Setting:
    """Whose time is over before the third."""
    return Setting(folder, seconds=5, began=0, clock=iter([1, 4, 6]).__next__)


class Measurements:
    @staticmethod
    def measure(setting: Setting):
        for number in setting.in_time(["one", "two", "three"]):
            yield [row("figure", 1, ok=True, of=number)]


def test_results_are_written_as_soon_as_they_are_there(tmp_path: Path) -> None:
    late = section_process.measure(Measurements, "x", for_two(tmp_path))
    content = json.loads((tmp_path / "x.json").read_text())
    assert late == 3
    assert [each["of"] for each in content["rows"]] == ["one", "two"]
    assert content["left_out"] == "1 of 3 left out, from three on"
    assert section_process.measure(Measurements, "x", Setting(tmp_path)) == 0
    with pytest.raises(OutOfTime):
        next(Setting(tmp_path, seconds=-1).in_time([1]))


def test_a_figure_that_is_not_as_it_must_be_fails_its_section(tmp_path: Path) -> None:
    class Wrong:
        @staticmethod
        def measure(setting: Setting):
            yield [row("difference", 3.0, ok=False), row("other", 1.0)]

    assert section_process.measure(Wrong, "x", Setting(tmp_path)) == 4


def test_the_page_shows_figures_verdicts_and_what_is_missing(tmp_path: Path) -> None:
    sections = [Section("x", 1, "Some figures"), Section("y", 1, "Later")]
    section_process.measure(Measurements, "x", for_two(tmp_path))
    page = summarise([Outcome(sections[0], "out of time", 12.3)], sections, tmp_path)
    assert "| x | out of time | 12 |" in page
    assert "| y | not yet | | |" in page
    assert "Out of time: 1 of 3 left out, from three on." in page
    assert "| figure | one | 1 | ok |" in page


NEEDED_BY_TORCH = "torch numpy filelock typing-extensions sympy mpmath networkx jinja2 markupsafe fsspec setuptools"
HIDE = "import sys; sys.modules.update(dict.fromkeys({names!r}))"


def absent_from_a_bare_image() -> list[str]:
    """Modules of all installed packages that neither torch needs nor the kit's list of wheels has."""
    listed = (ROOT / "benchmarks" / "gpu_check" / "requirements.txt").read_text().splitlines()
    there = {normal(line) for line in listed if not line.startswith("#")} | set(NEEDED_BY_TORCH.split())
    there |= {"packaging", "pip", "dualmask"}
    vendored = {path.name for path in Path(setuptools.__file__).with_name("_vendor").iterdir()}
    return [
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier() and module not in vendored and not there & {*map(normal, owners)}
    ]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_section_runs_on_a_cpu_with_what_a_bare_image_has(tmp_path: Path) -> None:
    names = absent_from_a_bare_image()
    assert {"mlflow", "ray", "webdataset", "sentencepiece", "rich", "typer"} <= set(names)
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(names=names))
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--tiny", "--minutes", "20"]
    path = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    page = (tmp_path / "out" / "summary.md").read_text()
    assert done.returncode == 0, page
    rows = {each.name: json.loads((tmp_path / "out" / f"{each.name}.json").read_text())["rows"] for each in SECTIONS}
    assert {row["stage"] for row in rows["speed"] if row["metric"] == "milliseconds"} == set(STAGES)
    assert {row["variant"].split()[0] for row in rows["parity"] if "variant" in row} == set(FAMILIES)
    assert "timeline.trace.json.gz" in page


def test_time_that_is_covered_is_counted_once() -> None:
    assert covered([("a", 0, 10), ("b", 5, 7), ("c", 8, 12), ("d", 20, 21)]) == 13


def test_bad_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for request, said in {
        ("--sections", "card,nothing"): "nothing: give some of card, parity",
        ("--device", "cpu"): "--device cpu needs --tiny",
    }.items():
        with pytest.raises(SystemExit) as ended:
            gpu_check.main(["--out", str(tmp_path), *request])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
