"""The planner: from observation, ledger and policy to the next steps."""
