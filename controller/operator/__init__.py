"""What an operator does with a set: manual drains, rolling runs, self-service maintenance.

Nothing here writes to a NIC, a pool or the ledger. The requests go to the blob beside the ledger,
the leader carries them out, and the ledger shows the result.
"""
