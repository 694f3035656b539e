"""`python -m tests.docs NAME` prints a part of the pages that is generated from the code."""

import sys

from tests.docs.generated import PARTS

if __name__ == "__main__":
    wanted = sys.argv[1:]
    if len(wanted) != 1 or wanted[0] not in PARTS:
        sys.exit(f"write one of these names: {', '.join(PARTS)}")
    print(PARTS[wanted[0]]())
