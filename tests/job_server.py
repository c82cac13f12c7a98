"""Does one native job after another in one process, as `python -m services.jobs` does one.

Loading the algorithms takes longer than a small job. Here the process that workers are forked
from outlives a job, so that they are loaded once. Requests are lines on stdin, [project, process]
as JSON; each exit code is a line on the file descriptor that is named in the arguments. What the
jobs and their workers say goes to stdout and stderr.
"""

import json
import os
import sys


def main() -> None:
    from services.jobs.main import main as do_job

    replies = int(sys.argv[1])
    for line in sys.stdin:
        project, *arguments = json.loads(line)
        os.chdir(project)
        code = do_job(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(replies, b"%d\n" % code)


if __name__ == "__main__":
    main()
