"""`python -m tests.simulation`: play seeds, judge them by the laws, tell the story of one.

    python -m tests.simulation --seeds 0..1000 --jobs 2
    python -m tests.simulation --seeds 0..300 --ablate write-ahead
    python -m tests.simulation --seed 17 --story
    python -m tests.simulation --crash-points "one VM"

Every Python and every PYTHONHASHSEED gives the same histories. To see that it does, run
`python -m tests.simulation --seeds 0..40` with each, and compare the line "histories".

Exit code 0: all laws were kept (with --ablate: the law it names was broken).
"""

import argparse
import sys
import time
from collections.abc import Collection

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation import ablations, campaign, coverage_goals, crash_points, trace_report
from tests.simulation.scenario_generator import draw

EVERY = "all"
SHOWN = 30
TOLD_EVERY = 100
"""Where there is no terminal for a progress bar."""


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seeds",
        metavar="A..B",
        type=_seeds,
        default=range(100),
        help="play the seeds from A up to B, without B (default: 0..100)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--ablate", choices=sorted(ablations.SWITCHES), default="")
    parser.add_argument("--seed", type=int, help="play one seed")
    parser.add_argument("--story", action="store_true", help="tell what happened to --seed")
    parser.add_argument(
        "--crash-points",
        nargs="?",
        const=EVERY,
        choices=[EVERY, *crash_points.SCENARIOS],
        metavar="SCENARIO",
        help=f"let leaders die at every request: {', '.join(crash_points.SCENARIOS)}, or {EVERY}",
    )
    options = parser.parse_args()
    if options.crash_points is not None:
        return _crash_points(options.crash_points, options.jobs)
    if options.seed is not None:
        return _one(options.seed, options.ablate, told=options.story)
    if options.story:
        parser.error("--story tells of one seed: add --seed N")
    return _many(options.seeds, options.jobs, options.ablate)


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form A..B, with A below B")
    return range(int(first), int(last))


def _crash_points(name: str, jobs: int) -> int:
    broken = 0
    for each in crash_points.SCENARIOS if name == EVERY else [name]:
        tried = crash_points.explore(each, jobs)
        print("\n  ".join([str(tried), *tried.broken[:SHOWN]]), flush=True)
        broken += len(tried.broken)
    return 1 if broken else 0


def _one(seed: int, ablated: str, *, told: bool) -> int:
    played = campaign.play(draw(seed), ablated)
    broken = campaign.judge(played)
    if told:
        print("\n".join(trace_report.tell(played, broken)))
    else:
        print("\n".join(str(each) for each in broken) or "all laws were kept")
    print(f"history {campaign.digest_of(played.history)}")
    return _code({each.law for each in broken}, ablated)


def _code(broken_laws: Collection[str], ablated: str) -> int:
    """Return the exit code: a law that a switched-off safeguard was to break has to be broken."""
    if ablated:
        return 0 if ablations.SWITCHES[ablated].law in broken_laws else 1
    return 1 if broken_laws else 0


def _many(seeds: range, jobs: int, ablated: str) -> int:
    console = Console(stderr=True)
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("seeds", total=len(seeds))
        done = 0

        def heard(verdict: campaign.Verdict) -> bool:
            nonlocal done
            done += 1
            rate = done / (time.monotonic() - began)
            progress.update(task, advance=1, description=f"{rate:.1f} seeds/s")
            if not console.is_terminal and done % TOLD_EVERY == 0:
                console.print(f"{done} of {len(seeds)} seeds, {rate:.1f} per second")
            if verdict.broken and not ablated:
                console.print(f"seed {verdict.seed}: {verdict.broken[0]}", markup=False)
            return False

        report = campaign.run(seeds, jobs=jobs, ablated=ablated, heard=heard)
    print(_page(report, seeds, ablated, time.monotonic() - began, jobs))
    unmarked = not ablated and len(seeds) >= coverage_goals.ENOUGH_SEEDS and report.unmarked
    return 1 if unmarked else _code(report.laws, ablated)


def _page(report: campaign.Report, seeds: range, ablated: str, took_s: float, jobs: int) -> str:
    what = f" without {ablated}" if ablated else ""
    lines = [
        f"seeds {seeds.start}..{seeds.stop}{what}: {report.verdicts} histories, "
        f"{len(report.failed)} with a broken law",
        f"simulated {report.lasted_s / 3600:.1f} h with {report.requests:,} requests in "
        f"{took_s:.0f} s, {report.verdicts / took_s:.1f} seeds/s with {jobs} jobs",
        f"histories {report.digest}",
        f"without their texts {report.behaviour}",
    ]
    lost = (f"{kind.value} {report.lost[kind]:,} of {sent:,}" for kind, sent in report.sent.items())
    lines.append(f"requests that clients would have lost: {', '.join(lost)}")
    if not ablated:
        lines.append(f"{report.twice} seeds were played twice, and gave the same history")
    lines += [
        f"  {law}: {count} seeds, {1000 * count / report.verdicts:.0f} per thousand"
        for law, count in sorted(report.laws.items())
    ]
    if ablated:
        lines.append(f"  the law to break was {ablations.SWITCHES[ablated].law}")
        return "\n".join(lines)
    for verdict in report.failed[:SHOWN]:
        lines.append(f"  seed {verdict.seed}: {verdict.broken[0]}")
        lines.append(f"    python -m tests.simulation --seed {verdict.seed} --story")
    walked = len(coverage_goals.EXPECTED) - len(report.unmarked)
    lines.append(f"marks: {walked} of {len(coverage_goals.EXPECTED)} happened at least once")
    rare = sorted(coverage_goals.EXPECTED, key=lambda mark: (report.marks[mark], mark))[:8]
    lines.append("  rarest: " + ", ".join(f"{mark} {report.marks[mark]}" for mark in rare))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
