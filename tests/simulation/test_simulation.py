"""A fixed share of `python -m tests.simulation`: seeds, ablations, determinism, stories."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from controller.simulator.world.history import Change
from tests.simulation import ablations, campaign, targeted_faults, trace_report
from tests.simulation.faults import test_ablations, test_closing, test_second_channel
from tests.simulation.scenario_generator import draw

ROOT = Path(__file__).parents[2]
SEEDS = range(50)
FEW_SEEDS = range(10)
MOST_SEEDS = 150
"""So many seeds at the most a switched-off safeguard may go unnoticed."""
REGRESSIONS = (
    240,  # a leader that was cut off from Resource Manager kept the lease (S7)
    121,  # a VM that a template put back was acknowledged again and again (S1)
    222,  # what was lost with a blob kept a VM out for good (S3)
    235,  # the same as 121, before the first acknowledgement (S1)
    1185,  # a pool was read too soon when another pool of its load balancer had failed first (H1)
    38,  # an agent contested a leader that had recovered the ledger and restored its VMs (H1)
    989,  # the ledger was deleted while no agent ran: nobody could know what was removed (S3)
    918,  # a removal was repeated after another client had replaced the ledger (S5)
    1363,  # the last read of an operation ignored what an earlier read had to wait for (H1)
    1029,  # a removal that changes nothing was planned again and again, without a pause (H1, L2)
    1036,  # a set that had settled was taken for busy: one look fell into an everyday read (L1)
    2093,  # a ledger write waited for its connection until the lease could have expired (S4)
    2615,  # a set was taken for idle while an agent waited for an answer that never came (H1)
    318,  # an event that began and ended while no agent could write was called cancelled (V1)
    525,  # a write repeated the read that Azure had just asked the inventory to delay (H1)
    1184,  # a check after a write read what Azure had asked to leave alone (H1)
    1185,  # the same, of a pool
    1241,  # a set was taken for idle before an agent read again a VM that had been unreadable (H1)
    5003,  # an agent that could not start read the load balancers every five seconds (H1)
    145,  # an agent died over its machine after the calm, with the lease (S7)
    20076,  # old documents hid an event, whose verdict then came twice (V1)
    30044,  # a write to a deleted pool was taken for a missing role of the leader (L1)
    31011,  # what a clock that was an hour ahead had recorded was waited for (L1)
    31079,  # a hardship dropped the act that was to end another one (L1)
    31561,  # a VM that has to leave was read again too late (L2)
    70033,  # an event was acknowledged by what a VM had reported before another restarted it (V1)
    70094,  # a new leader opened its VM before it had read the ledger (S9)
    70215,  # a leader forgot what it had recorded right before it lost storage (S8)
    70293,  # of two VMs that close alone each took itself for the first (S8)
    110032,  # an agent that could not start left its VM closed (S9)
    90151,  # a VM closed alone while another one was restored and not open yet (S8)
    100650,  # a NIC that did not show its pool outweighed the pool that showed it (S1)
    140393,  # two agents remembered different parts of a ledger from a backup (S3)
    120155,  # a leader that could not read a VM never acknowledged its event (L2)
    130172,  # one lost reply after an idle time was taken for the silence of storage (S8)
    200105,  # a NIC that could not be read was reported as readable between two inventories (H1)
    200347,  # a VM opened while a change of the ledger was on its way to its agent (S9)
    200247,  # a reply that came after its time-out was taken for news (S8)
    210022,  # a VM that had opened a moment before was taken for known to be open (V1)
    1001083,  # events that agents of deleted VMs had forwarded were waited for (L1)
    1001126,  # an adminState that people had set after the record did not come back (S3)
    1001163,  # a leader that could not write a changed ledger went on leading (S7)
    1002031,  # a VM closed alone though storage had just answered the election (S8)
    1004423,  # an adminState that people set while the write was sent did not come back (S3)
    1005276,  # an edit of a pool moved a member whose NIC was still being written (S5)
    1006136,  # a write of a pool that a later one had replaced took effect for an instant (S6)
    1006359,  # two mechanisms wrote one pool, and the planner raised an error (H2)
    1004267,  # the only agent that saw an event was cut off from storage (S7)
    1004139,  # only the failed agent of a VM could forward its event (S7)
    1003110,  # a forwarded event did not count, because the clock of its VM was an hour slow (S6)
    1001530,  # a write that came to nothing brought back the reference to a deleted pool (L1)
    210172,  # a VM that had closed alone was not counted when the event of another one started (S8)
    210148,  # a write left just after people had done the same, and got no answer (S3)
    210182,  # an agent without a metadata service could not know that a drain was over (S9)
    220059,  # a VM that had lost its only pool was taken for one whose event is owed (L2)
    220318,  # an old reply showed that a VM was back in its pools (S5)
    230087,  # no agent was left to acknowledge an event: every VM was deallocated (L2)
    230186,  # a VM that was only frozen any more was taken for one that reboots (S6)
    230387,  # a VM was put back and deleted while no agent led (V1)
    230666,  # a VM was forgotten as open by a report that was too old to show it (S9)
    240034,  # the only VM that was left was cut off from storage (S7, L2)
    80134,  # an event was acknowledged because Azure found no NIC and no pool at all (S1)
    1001333,  # an event began while no agent could read, before its VM was out (V1)
    1001433,  # people set a member Up that an agent held Down, while its event went on (V1)
    1001308,  # the inventory that found a set converted was due when the set was idle (H1)
    1001348,  # a leader repeated a refused ledger write before it had read the ledger (S4)
    1001431,  # a leader yielded again and again over a report that no agent could read (L2)
    1003286,  # an agent forwarded an event after another agent had, and its VM got no verdict (V1)
    1004110,  # a VM that could not close wrote a report at each attempt, after its drain too (H1)
    1004280,  # the only VM that ever led was deleted before its set was found converted (L1)
    1004260,  # a VM restored before its event was over for others was judged as hit (V1)
    1005238,  # an address that another set held Down was judged without its ledger (S3)
    1005267,  # a killed agent had forwarded an event, which withdrew the verdict on it (V1)
    1006073,  # an agent that did not know the service ports took its VM for quiet (S1)
    1007200,  # a converted set got a second ledger while the first could not be read (S4)
    1007583,  # an agent forwarded an event that had begun before its VM was out (V1)
    1007899,  # people removed a member while the ledger could not be read (S3)
    1007994,  # rules that could not be read made a VM that was Down count as put back (V1)
    300979,  # the only agent of a set lost a role: its entry goes on naming its VM (S9)
    301023,  # an event began while a write was on its way that restored its VM (S6)
    301427,  # a reply with a new entry was on its way when a VM opened (S9)
    301709,  # an operator's command edited a blob that no command can read (L1)
    301728,  # people added a VM to a pool, and a leader died before it had read that (V1)
    302298,  # no leader led long enough to prove that a pool was deleted: no verdict (L1)
    302140,  # a leader that could not read the drain requests restored no VM, and led on (L1)
    1100398,  # people set an adminState while a write of the pool was under way (S3)
    1100592,  # a VM was counted on whose agent had ended before it forwarded a start (S2)
    1100816,  # a load balancer was created again with members that are Down (S1)
    1100562,  # an agent's write replaced what people had set, and it came back (S3)
    1110008,  # VMs closed alone whose event documents do not show each other's events (S8)
    310123,  # a ledger was restored from a backup, and old views hid what it lacked (S5)
    310182,  # a restore of a former leader was under way when its VM's event appeared (S6)
    310246,  # a second agent on a VM had read the ledger, and not the one that closed (S8)
    310824,  # the identity of a VM was recorded from an inventory before it was created again (S3)
    311127,  # the record of a VM was lost, and an event ended all agents that remembered it (S3)
    1112164,  # a pool of two sets lost an address that belongs to no VM (S5)
    1112177,  # an event that lay a week ahead was cancelled, and its forwarding withdrawn (H1)
    1112335,  # an event of which no agent read the start began before its NotBefore (V1)
    1112363,  # a VM whose connections cannot be counted only closes (L2)
    1113362,  # a read of a NIC had failed, and the next inventory showed it (H1)
    1112026,  # an agent remembered that storage had not answered, and left the lease to others (S7)
    1113796,  # a leader noted an adminState, and its successor took that for a forgery (S3)
    1111587,  # a VM that closed and restarted passed for out, before a new leader read (V1)
    1111750,  # an agent remembered an entry that the ledger had lost, and ended a lease (H1)
    1110744,  # an administrator deleted the ledger under the lease of a leader (S4)
    1110811,  # a removal of an earlier leader was under way, and its record was deleted (S1)
    1111169,  # a VM that only its own agent can close could not read the ledger (L2)
    1007690,  # a VM whose event had just ended was taken for open, without storage (S8)
    1116238,  # a pool refused a VM for a minute, and the VM opened for the others (S9)
    1117013,  # an agent started while a scale set was turned back, and withdrew nothing
    1117742,  # an agent that had started forwarded again an event that was over (S7, seen by H1)
    1117853,  # a leader that reads no VM in full kept a verdict waiting, beside able peers (L1)
    1117024,  # the reply to what a leader had asked came after its tenure (H1)
    1116531,  # a leader whose VM went down kept the lease: its peers had left it (S7)
    1115694,  # a leader without Resource Manager kept a verdict waiting, beside able peers (L1)
    1114582,  # a VM was created again before its identity was read, beside its adminState (S3)
    1140107,  # VMs that are out could not forward an event, which was cancelled (V1, the law)
    1154839,  # the removal of a closed VM got no reply, and nothing else was due (S7)
    1154735,  # replies to renewals were lost, and each extended the lease (S7)
    1152471,  # replies to acquires were lost, and each extended the lease (S7)
    1151432,  # the leader could not read what other agents forward (S7)
    1132499,  # the ledger was recovered while a VM that was out restarted (V1)
    1131232,  # agents of VMs that are out could not withdraw forwarded events (H2, the world)
    1131677,  # the only VM that was left was cut off from a service (V1, the law)
    1130096,  # a VM whose agent cannot report it was opening when all else was over (S9, the law)
    1127677,  # a VM that Azure had stopped was taken out, and counted as healthy (S2, the law)
    1127456,  # an event far ahead stood forwarded, and its agent could not withdraw it
    1125226,  # a reply to what a leader had asked came just before its next tenure (H1, the law)
    1123675,  # the only agent that remembered a Down ended, and its record was lost (S3, a law)
    1123699,  # the floor held the VM of a dead agent, which had forwarded an event far ahead
    1123400,  # a leader on an affected VM kept a lease that had looked free and was refused (S7)
    1122773,  # restores took the load balancer while a removal waited for a read of it (S7)
    1122931,  # an agent closed by a ledger, and forgot it when storage lost it (S3)
    1120779,  # a leader on an affected VM took the lease back before its only able peer looked (S7)
    1120417,  # a VM that had closed alone and was deleted passed for one that opened (V1)
    1119225,  # a standby did not learn of a conversion, and withdrew nothing
)
"""Seeds whose histories broke a law before they were fixed, in the product or in the law."""
QUICK = ("floor", "observed-out", "write-ahead")
"""Safeguards that are missed within a few seeds."""
MADE_TO_MEASURE = {
    "date-correction": targeted_faults.short_notice,
    "if-match-on-ledger": targeted_faults.late_ledgers,
    "if-match-on-nic": targeted_faults.rivals,
    "if-match-on-pool": targeted_faults.rivals,
    "verify-by-get": targeted_faults.hollow_writes,
    "yielding": targeted_faults.short_notice,
}
"""Safeguards that are missed within a few of the seeds that have their trial."""
MISSED_LAST = {
    "date-correction": 21,
    "floor": 6,
    "if-match-on-ledger": 11,
    "if-match-on-nic": 58,
    "if-match-on-pool": 73,
    "verify-by-get": 80,
}
"""Seeds that are tried first, because they missed the safeguard the last time."""
PINNED = {
    "case-folding": 1,
    "lease-id-on-ledger": 0,
    "old-replies": 220318,
    "power-state": 10,
    "two-clean-polls": 0,
    "verdicts": 0,
}
"""Safeguards that are missed in this seed."""
ELSEWHERE = ("ability", "fresh-acknowledgement")
"""Safeguards that are switched off in `faults/test_leadership.py` and `faults/test_absence.py`."""


@pytest.mark.timeout(600)
def test_the_first_seeds_keep_every_law() -> None:
    """Whole agents keep every law through seeded histories."""
    report = campaign.run(FEW_SEEDS, jobs=os.cpu_count() or 1, heard=lambda _: False)
    assert report.verdicts == len(FEW_SEEDS)
    assert [(each.seed, each.broken[0]) for each in report.failed] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_share_of_the_seeds_keeps_every_law() -> None:
    """Whole agents keep every law through seeded histories, and a rerun gives the same history."""
    report = campaign.run(SEEDS, jobs=os.cpu_count() or 1, heard=lambda _: False)
    assert report.verdicts == len(SEEDS)
    assert [(each.seed, each.broken[0]) for each in report.failed] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_fixed_fault_stays_fixed(seed: int) -> None:
    """A history that once broke a law keeps all of them."""
    assert campaign.verdict_on(draw(seed)).broken == ()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUICK)
def test_a_safeguard_that_is_switched_off_is_missed(name: str) -> None:
    """Without the safeguard the law that needs it is broken within a few histories."""
    law = ablations.SWITCHES[name].law
    report = campaign.run(
        sorted(range(MOST_SEEDS), key=lambda seed: seed != MISSED_LAST.get(name)),
        jobs=os.cpu_count() or 1,
        ablated=name,
        heard=lambda verdict: law in verdict.laws,
    )
    assert report.laws[law]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MADE_TO_MEASURE)
def test_a_safeguard_is_missed_in_its_trial(name: str) -> None:
    """Without the safeguard the law that needs it is broken in the trial that was made for it."""
    law = ablations.SWITCHES[name].law
    tried = [
        seed
        for seed in range(MOST_SEEDS)
        if targeted_faults.trial_of(seed) is MADE_TO_MEASURE[name]
    ]
    report = campaign.run(
        sorted(tried, key=lambda seed: seed != MISSED_LAST.get(name)),
        jobs=os.cpu_count() or 1,
        ablated=name,
        heard=lambda verdict: law in verdict.laws,
    )
    assert report.laws[law]


@pytest.mark.slow
@pytest.mark.parametrize("name", PINNED)
def test_a_safeguard_is_missed_in_its_seed(name: str) -> None:
    """Without the safeguard the law that needs it is broken in one history."""
    verdict = campaign.verdict_on(draw(PINNED[name]), name)
    assert ablations.SWITCHES[name].law in verdict.laws
    assert "H2 clean" not in verdict.laws, "the switch itself ends no agent"


def test_every_safeguard_is_switched_off_in_some_test() -> None:
    """Each of them has seeds, a trial, or a history of its own."""
    played = {
        *test_ablations.PLAYED,
        *test_closing.CLOSING,
        *test_second_channel.PLAYED,
    }
    tested = {*QUICK, *MADE_TO_MEASURE, *PINNED, *played, *ELSEWHERE}
    assert tested == {*ablations.SWITCHES}


def test_a_seed_gives_the_same_history_whatever_the_hash_seed() -> None:
    """The fingerprint of a history does not depend on the order of sets."""
    prints = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "7"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(prints) == 1


def test_rewording_changes_one_fingerprint_only() -> None:
    """Reworded texts keep the fingerprint of what happened; another value does not."""

    def history(message: str, vm: str) -> list[Change]:
        body = json.dumps({"holds": [{"subject": vm, "message": message}]})
        return [
            Change(1, "log", vm, {"message": message}),
            Change(2, "blob_written", "web.json", {"by": vm, "body": body}),
        ]

    before, reworded, moved = history("a", "web-1"), history("b", "web-1"), history("a", "web-2")
    assert campaign.digest_of(before) != campaign.digest_of(reworded)
    assert campaign.behaviour_of(before) == campaign.behaviour_of(reworded)
    assert campaign.behaviour_of(before) != campaign.behaviour_of(moved)


def test_the_story_of_a_broken_law_is_short_and_names_it() -> None:
    """A failure is told in at most forty lines, which name the law; a replay gives the same."""
    name = "observed-out"
    seed, played, broken = next(
        (seed, played, broken)
        for seed in range(MOST_SEEDS)
        if (broken := campaign.judge(played := campaign.play(draw(seed), name)))
    )
    told = trace_report.tell(played, broken)
    assert len(told) <= trace_report.MOST_LINES
    assert any(broken[0].law in line for line in told)
    again = campaign.play(draw(seed), name)
    assert campaign.digest_of(again.history) == campaign.digest_of(played.history)
