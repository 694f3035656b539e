"""Steering a set by hand: take a VM out, put it back, go through all of them one by one.

Nothing here writes to a NIC, a pool or the ledger. It writes requests into the blob beside the
ledger, which the leader carries out, and watches the ledger to tell how that goes.
"""
