"""`lb-drain init`: writes a configuration from what Azure answers.

`discovery` asks Azure, `template` writes the text, `init` combines them and asks the operator.
"""
