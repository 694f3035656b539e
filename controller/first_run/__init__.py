"""The first run: a configuration from what Azure says, completion for shells, and the manual page.

`discover` asks, `template` writes, `init` puts them together and talks to a person; `completion`
and `manual` are made from the parser of `controller.cli`, which therefore is handed to them.
"""
