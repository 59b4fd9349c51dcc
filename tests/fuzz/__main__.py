"""`python -m tests.fuzz`."""

import sys

if __name__ == "__main__":
    from tests.fuzz.running import main

    sys.exit(main())
