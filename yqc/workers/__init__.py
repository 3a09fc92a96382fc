"""Jobs side by side: in processes of this machine, or on a Ray cluster.

`jobs`      what a job is, and the session that it needs
`memory`    how many jobs fit into the memory of this machine
`processes` jobs in this process, or in several beside it
`parcels`   what a session needs, sent to other machines
`cluster`   jobs on a Ray cluster
`alone`     times of files on a machine of it that runs nothing else
"""

from yqc.workers.alone import time_alone
from yqc.workers.cluster import ClusterError, RayWorkers, join_cluster
from yqc.workers.jobs import Job, Opening, Workers
from yqc.workers.memory import choose_jobs
from yqc.workers.processes import LocalWorkers

__all__ = [
    "ClusterError",
    "Job",
    "LocalWorkers",
    "Opening",
    "RayWorkers",
    "Workers",
    "choose_jobs",
    "join_cluster",
    "time_alone",
]
