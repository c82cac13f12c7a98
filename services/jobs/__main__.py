"""The program of the `native` executor; nothing is imported here, because workers do it again."""

import sys

if __name__ == "__main__":
    from services.jobs.main import main

    sys.exit(main(sys.argv[1:]))
