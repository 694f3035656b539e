"""The agent process: elect a leader, watch events, reconcile."""
