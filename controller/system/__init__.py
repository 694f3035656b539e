"""What differs between operating systems: one module for each matter, and the choice inside it.

Nothing else in this program asks on which system it runs. The agent runs on Linux; on Windows it
was type-checked and its branches were tested on Linux, but it was never run there
(`docs/windows.md`). Standard library only, because the probe responder needs it too.
"""
