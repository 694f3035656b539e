"""What an operator can set, and how a file becomes settings."""
