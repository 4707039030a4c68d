"""Hardware files: those shipped load, and what is wrong is said in one line."""

from pathlib import Path

import pytest

from dualmask.config.hardware import load_hardware
from dualmask.config.tree import ConfigError

FOLDER = Path(__file__).parents[3] / "configs" / "hardware"


@pytest.mark.parametrize("name", ["a100-80g", "h100-80g", "h200-141g"])
def test_shipped_files_by_name(name):
    found = load_hardware(name, FOLDER)
    assert found.node_gb_per_s > found.network_gb_per_s  # NVLink is faster than what leaves a node
    assert found.peak("bf16") > found.peak("fp32")


def test_a_file_of_ones_own(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text((FOLDER / "h100-80g.yaml").read_text() + "price_per_hour: 2.5\n")
    assert load_hardware(str(own), FOLDER).price_per_hour == 2.5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("memory_gib: 79", "memory_gib"),
        ("compute_share: 1.4", "compute_share = 1.4"),
        ("bandwith_share: 0.5", "did you mean bandwidth_share?"),
        ("bf16_tflops: fast", "bf16_tflops = 'fast'"),
    ],
)
def test_one_line_for_what_is_wrong(change, named, tmp_path):
    key = change.split(":")[0]
    kept = [line for line in (FOLDER / "a100-80g.yaml").read_text().splitlines() if not line.startswith(f"{key}:")]
    own = tmp_path / "mine.yaml"
    own.write_text("\n".join([*kept, *([] if change == "memory_gib: 79" else [change])]))
    with pytest.raises(ConfigError) as error:
        load_hardware(str(own), FOLDER)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name():
    with pytest.raises(ConfigError, match="neither a file nor one of a100-80g, h100-80g, h200-141g"):
        load_hardware("abacus", FOLDER)
