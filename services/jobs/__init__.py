"""coldstream's algorithms as whole RELION jobs: `python -m services.jobs FOLDER`.

The job folder is the only argument and the project is the working directory, as for a site's own
program (`command:PROGRAM`). `job.json` in the folder says what to do; the outputs are those that
RELION's program of that type leaves. Exit code 0: done, 2: aborted, 1: failed.
"""
