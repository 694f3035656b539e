"""What is shipped for those who watch an agent, against the metrics that an agent exposes."""
