"""The other scripts of ``slurm/``: data on all nodes, any command on one, a curriculum as a job array."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import tiny
import yaml
from cluster import Cluster
from undisturbed import Undisturbed

from data_pipeline.build import build
from data_pipeline.manifest import Manifest
from dualmask.config.data import DataBuildConfig

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(1200)]


def test_two_nodes_build_the_shards_of_one(cluster: Cluster, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, text in topics.items():
        (corpus / f"{name}.txt").write_text(text, encoding="utf-8")
    tree = {
        "output": str(tmp_path / "alone"),
        "source": {"kind": "text", "paths": [str(corpus)]},
        "tokenizer": {"vocab_size": 600},
        "max_length": 32,
        "shards": {"sequences_per_member": 16, "members_per_shard": 8},
        "workers": 2,
    }
    config = tmp_path / "data.yaml"
    config.write_text(yaml.safe_dump(tree))
    build(DataBuildConfig.model_validate(tree))

    output = tmp_path / "together"
    job = cluster.submit(
        "--nodes=2", "--cpus-per-task=2", "slurm/data.sh", "--config", config, "--set", f"output={output}"
    )
    cluster.until(lambda: "Ray: 2 nodes, 4 cores" in cluster.log(job), job)
    head = re.search(r"head at (\S+)", cluster.log(job))
    assert head
    with pytest.raises(AssertionError, match="InvalidAuthToken"):  # from a shell that does not have the job's token
        cluster.run(Path(sys.executable).with_name("ray"), "health-check", "--address", head[1])
    account = cluster.wait(job)
    assert account["JobState"] == "COMPLETED", cluster.log(job)[-6000:]
    alone, together = Manifest.load(tmp_path / "alone"), Manifest.load(output)
    assert together == alone
    assert len(together.splits["train"].shards) > 5


def test_a_command_of_dualmask_is_a_job(cluster: Cluster, model_folder: Path, tmp_path: Path) -> None:
    text = "The rain in Spain stays mainly in the plain."
    job = cluster.submit("slurm/eval.sh", "edit", "--model", model_folder, "--keep-rate", "0.7", "--json", text)
    account = cluster.wait(job)
    assert account["JobState"] == "COMPLETED", cluster.log(job)
    assert json.loads(cluster.log(job).splitlines()[-1])["input"] == text


def test_an_array_of_jobs_trains_a_stage_each(
    cluster: Cluster, two_ranks: Undisturbed, data: Path, tmp_path: Path
) -> None:
    output, config = tmp_path / "stages", tiny.write_config(tmp_path, data, "stages")
    job = two_ranks.submit(cluster, config, "--array=0-3%1", script="slurm/stages.sh")
    for task in range(4):
        account = cluster.wait(f"{job}_{task}")
        assert account["JobState"] == "COMPLETED", cluster.log(job)[-6000:]
    assert two_ranks.equals(output)
