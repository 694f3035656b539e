"""The data plane: backends, a load balancer, clients."""
