"""What the pages show, without the site.

`python -m tests.docs NAME` prints a part that is generated from the code, such as `commands`.
`python -m tests.docs samples [SCENE ...]` runs the scenes and writes their output into the pages.
"""

import sys
import tempfile
from pathlib import Path

from tests.docs.generated import PARTS
from tests.docs.samples import write
from tests.docs.scenes import SCENES
from tests.docs.stage import stage


def renew_samples(names: list[str]) -> None:
    """Run scenes and write what they show."""
    for name in names or SCENES:
        with tempfile.TemporaryDirectory() as directory, stage(Path(directory)) as opened:
            SCENES[name](opened)
            for page in write(opened.outputs):
                print(f"renewed {page}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["samples", *names] if set(names) <= SCENES.keys():
            renew_samples(names)
        case [name] if name in PARTS:
            print(PARTS[name]())
        case _:
            sys.exit(f"write samples [{'|'.join(SCENES)}], or one of {', '.join(PARTS)}")
