"""Training: ``deepspeed [--num_gpus N] launcher/train.py --config X.yaml``; torchrun and plain python start it as well.

Everything that can be wrong is checked before a process group exists. Exit codes: 0 done; 1 this rank cannot go on, and
will not the next time; 2 bad configuration; 75 stopped on request, or left alone by other ranks: worth starting again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

# the launcher puts this folder first on the path, where its files could hide libraries; the root belongs there
sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_pipeline.manifest import ManifestError
from data_pipeline.remote import UnreachableError
from dualmask.config.hardware import load_hardware
from dualmask.config.tree import ConfigError
from dualmask.curriculum import total_steps
from dualmask.training.errors import TrainingError
from dualmask.training.preemption import EXIT_CODE, StopRequest
from launcher import preflight

LAUNCHER_SECONDS = 2  # they look at their ranks once a second: the one that failed is seen before those it left


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="changes one key of it")
    parser.add_argument("--resume", default="auto", metavar="auto|PATH|never", help="where to go on from")
    parser.add_argument("--stages", type=int, metavar="N", help="only the first N stages of it, for now")
    parser.add_argument("--profile", metavar="A:B", help="torch's profiler over steps A to B; into OUTPUT/profile")
    parser.add_argument(
        "--hardware", metavar="NAME|FILE", help="of configs/hardware, for MFU; default: by the GPU's name"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and stop")
    parser.add_argument("--deepspeed_config", metavar="FILE", help="more of DeepSpeed's settings, as JSON")
    parser.add_argument("--local_rank", type=int, help="given by the deepspeed launcher")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    stop = StopRequest()  # first of all: whoever asks while libraries are read is heard, too
    try:
        return start(parsed, stop)
    except Exception as error:
        return explain(error)


def start(arguments: argparse.Namespace, stop: StopRequest) -> int:
    """Checks, then does what was asked for; the exit code."""
    first = preflight.rank() == 0
    world = preflight.world_size()
    ready = preflight.check(arguments.config, arguments.set, arguments.deepspeed_config, world, arguments.stages)
    profiled = preflight.profiled_steps(arguments.profile, total_steps(ready.run.stages)) if arguments.profile else None
    hardware = load_hardware(arguments.hardware, preflight.HARDWARE) if arguments.hardware else None
    complete = arguments.resume == "auto" and not arguments.dry_run and preflight.RunRecord(ready.run).complete
    if complete and first:
        print(f"{ready.run.output}: already complete")
    prepare_environment(ready.run.device)
    if arguments.dry_run:
        from launcher.dry_run import describe

        if first:
            print(describe(ready, preflight.world_size()))
        return 0
    if not complete:
        from launcher.machine import prepared
        from launcher.session import Watch, train

        known = prepared(ready, world, local_world_size())
        if code := train(known, arguments.resume, stop, Watch(profiled, hardware)):
            return code
    if first:
        from launcher.finish import finish

        finish(ready.run)  # also if the run ended before it came to that
    return 0


def explain(error: Exception) -> int:
    """Says what ended this rank, in one line unless it is a mistake of the program; the exit code."""
    torch = sys.modules.get("torch")
    met = torch is not None and torch.distributed.is_initialized()
    if isinstance(error, UnreachableError) and met:
        print(f"rank {preflight.rank()}: {error}", file=sys.stderr)  # another rank may have had it in its cache
        return EXIT_CODE
    if isinstance(error, (ConfigError, ManifestError)) or (isinstance(error, ValueError) and not met):
        if preflight.local_rank() == 0:  # the ranks of a node have read the same files
            print(f"error: {error}", file=sys.stderr)
        return 2
    if torch is not None:
        from dualmask.training.heartbeat import lost_peers

        if reason := lost_peers(error):
            time.sleep(LAUNCHER_SECONDS)
            what = "left alone by other ranks; start again, and the run goes on from its last checkpoint"
            print(f"rank {preflight.rank()}: {what} ({reason})", file=sys.stderr)
            return EXIT_CODE
    if isinstance(error, (TrainingError, OSError)):
        print(f"error: {error}", file=sys.stderr)  # every rank: it may be this rank's own disk
    else:
        traceback.print_exception(error)
    return 1


def prepare_environment(device: str) -> None:
    """What libraries read when they are imported or started."""
    import torch

    cuda = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise ValueError("device=cuda, but this machine offers no CUDA device: set device=auto or device=cpu")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    if os.environ.get("MASTER_ADDR", "127.0.0.1") in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: listen nowhere else
    if not cuda:
        local = local_world_size()
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // local, 1)))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        os.environ.setdefault("LOCAL_SIZE", str(local))  # else DeepSpeed starts numactl in every step to count sockets


def local_world_size() -> int:
    """Ranks of this machine alone: torchrun says it in the one variable, deepspeed in the other."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or preflight.world_size())


if __name__ == "__main__":
    if code := main():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking process groups down whose other ranks are gone aborts, with a code of its own
