"""A drain on a data plane of real parts: HAProxy balances, nginx serves, the responder answers."""
