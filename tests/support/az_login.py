"""A workstation with `az login`: an `az` that prints tokens of a simulated Azure."""

import shlex
from pathlib import Path

from controller.simulator.world.world import World

TOKEN_LIFE_S = 3600.0


def write_az(directory: Path, world: World, *, principal: str, now: float) -> None:
    """Write the program `az`, which knows `account get-access-token` for this account.

    It is in the language of a shell, which starts at once on a busy machine too.
    """
    tokens = {
        service: world.issuer.issue(principal, f"https://{service}.azure.com", now, TOKEN_LIFE_S)[1]
        for service in ("management", "storage")
    }
    script = directory / "az"
    script.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --resource ]; do shift; done\n'
        f"case $2 in *management*) token={shlex.quote(tokens['management'])} ;;"
        f" *) token={shlex.quote(tokens['storage'])} ;; esac\n"
        'echo \'{"accessToken": "\'"$token"\'", "expires_on": 4102444800,'
        ' "expiresOn": "2100-01-01 00:00:00.000000", "tokenType": "Bearer"}\'\n'
    )
    script.chmod(0o755)
