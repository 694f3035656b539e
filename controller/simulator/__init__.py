"""A simulated Azure: what the agents call, and what calls on the VMs. Shares nothing with them."""
