"""Jobs side by side: in processes of this machine, or on a Ray cluster.

`jobs`      what a job is, and the session that it needs
`memory`    how many jobs fit into the memory of this machine
`processes` jobs in this process, or in several beside it
"""

from yqc.workers.jobs import Job, Opening, Workers
from yqc.workers.memory import choose_jobs
from yqc.workers.processes import LocalWorkers

__all__ = ["Job", "LocalWorkers", "Opening", "Workers", "choose_jobs"]
