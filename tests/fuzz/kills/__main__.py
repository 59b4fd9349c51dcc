"""`python -m tests.fuzz.kills`."""

import sys

if __name__ == "__main__":
    from tests.fuzz.kills.running import main

    sys.exit(main())
