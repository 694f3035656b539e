"""The updates of an Azure Stack Hub: polls, the second path, and what is remembered."""
