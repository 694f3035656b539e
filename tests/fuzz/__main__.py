"""Fuzz every parser of remote data: `python -m tests.fuzz --seconds 600 [--target NAME]`.

The time is shared out evenly over the targets. At the end stand executions, branches and crashes
of each; every crash is saved with the command that repeats it. The exit code is 1 when there was
one. Nothing is installed for it, and nothing outside this process is asked.
"""

import argparse
import logging
import sys
import time
import traceback
from pathlib import Path
from random import Random

from tests.fuzz.fuzz import fuzz, save
from tests.fuzz.targets import TARGETS, hold


def main() -> int:
    """Run the command."""
    options = _options()
    logging.disable()  # what a warning says is judged as the message of its error
    if options.replay:
        return _replay(options.target, options.replay)
    names = [options.target] if options.target else list(TARGETS)
    random = Random(options.seed)
    print(f"seed {options.seed}, {options.seconds / len(names):.1f} s for each target")
    print(f"{'target':<26}{'executions':>12}{'branches':>10}{'corpus':>8}{'crashes':>9}")
    executions = crashes = 0
    for name in names:
        run = fuzz(TARGETS[name], options.seconds / len(names), random)
        executions += run.executions
        crashes += len(run.crashes)
        print(
            f"{name:<26}{run.executions:>12}{len(run.edges):>10}{len(run.corpus):>8}"
            f"{len(run.crashes):>9}",
            flush=True,
        )
        for where, path in save(run, options.crashes):
            print(f"  {where}")
            print(f"    python -m tests.fuzz --target {name} --replay {path}", flush=True)
    print(f"{executions} executions, {crashes} crashes")
    return 1 if crashes else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument(
        "--crashes", type=Path, default=Path(".crashes"), help="where inputs of crashes are saved"
    )
    parser.add_argument("--replay", type=Path, help="feed this file to --target, and nothing else")
    options = parser.parse_args()
    if options.replay and not options.target:
        parser.error("--replay needs --target")
    return options


def _replay(name: str, path: Path) -> int:
    try:
        hold(TARGETS[name], path.read_bytes())
    except Exception:
        traceback.print_exc()
        return 1
    print("no crash")
    return 0


if __name__ == "__main__":
    sys.exit(main())
