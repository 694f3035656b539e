"""The laws S1 to H2 of the design, judged by what truly happened in a set of agents.

One replay and one function per law serve two kinds of history:

- The simulation records every request when it leaves its agent and when it arrives. An agent is
  judged by what it could know: the replies that had arrived, the ledger when its request left.
- Real processes (tests/e2e) leave a history of the world only. What an agent could know is bounded
  by time there: `Conditions` holds those tolerances.

`judge.violations` replays a history from its beginning and returns every broken law.
"""
