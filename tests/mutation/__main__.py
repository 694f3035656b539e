"""Mutation testing of the core: `python -m tests.mutation`.

Makes every small change to `controller/core` that the operators of `mutants.py` know, one at a
time, and runs the core's own unit tests and properties against each. A change that no test notices
is a missing test or a needless piece of code; the few that are neither are explained in
`survivors.toml`. Exits with 1 if one is not, or if an explanation has become needless.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter

from tests.mutation import suite, survivors

HASH_SEED = "PYTHONHASHSEED"


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    options = _options()
    if os.environ.get(HASH_SEED) != "0":
        # Else the order of a set, and with it whether some mutant is noticed, is left to chance.
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, HASH_SEED: "0"}
        )
    chosen = tuple(options.module or suite.MODULES)
    todo = [mutant for module in chosen for mutant in suite.mutants_of(module)]
    if options.grep:
        todo = [mutant for mutant in todo if options.grep in str(mutant)]
    whole = not (options.grep or options.sample)
    if options.sample:
        todo = random.Random(options.seed).sample(todo, min(options.sample, len(todo)))
    started = time.monotonic()
    print(f"{len(todo)} mutants; running the tests once without any", flush=True)
    table, reached = survivors.read(), suite.measure()
    total, killed, explained = Counter[str](), Counter[str](), Counter[str]()
    alive = []
    for mutant, notice in suite.judge(todo, reached, jobs=options.jobs):
        total[mutant.module] += 1
        if notice is not None:
            killed[mutant.module] += 1
        else:
            alive.append(mutant)
            explained[mutant.module] += table.explains(mutant.name)
        if options.verbose:
            print(f"{'killed by ' + notice if notice else 'SURVIVED'}: {mutant}", flush=True)
        elif sys.stderr.isatty():
            print(f"\r{total.total()}/{len(todo)}, {len(alive)} survived", end="", file=sys.stderr)
    if total.total() < len(todo):
        raise SystemExit("a worker ended early")
    print(f"\n{'module':<28}{'mutants':>8}{'killed':>8}{'survived':>10}{'explained':>11}")
    for module in (*chosen, ""):
        row = [c[module] if module else c.total() for c in (total, killed, explained)]
        name = module or "total"
        print(f"{name:<28}{row[0]:>8}{row[1]:>8}{row[0] - row[1]:>10}{row[2]:>11}")
    print(f"{time.monotonic() - started:.0f} s with {options.jobs} job(s)")
    unexplained = [mutant for mutant in alive if not table.explains(mutant.name)]
    for mutant in unexplained:
        place = f"{suite.PATHS[mutant.module].relative_to(suite.ROOT)}:{mutant.lines.start}"
        print(f"\nsurvived: {place}\n  - {mutant.before}\n  + {mutant.after}")
    stale = table.stale(chosen, {mutant.name for mutant in alive}) if whole else []
    for where, before, after in stale:
        print(f"\nexplained, but killed or gone: {where}\n  - {before}\n  + {after}")
    return 1 if unexplained or stale else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--module", action="append", choices=suite.MODULES, help="only this one")
    parser.add_argument("--grep", default="", help="only mutants whose description contains this")
    parser.add_argument("--sample", type=int, default=0, help="only so many, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="so many processes at once")
    parser.add_argument("--verbose", action="store_true", help="tell what noticed each mutant")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
