"""The doctor: what is missing for the agent to do its job here, told before anything breaks.

`gather` asks, `judge_*` decide, `show` prints. Nothing is changed by any of them.
"""
