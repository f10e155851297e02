"""A Ray on this machine whose head does no work; every line read adds a node, and its raylet is printed."""

import sys
import tempfile
from pathlib import Path

from ray.cluster_utils import Cluster

Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # where Ray notes the address of a cluster
head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": sys.argv[1]}
cluster = Cluster(initialize_head=True, head_node_args=head)
print(cluster.address, flush=True)
for _ in sys.stdin:
    node = cluster.add_node(num_cpus=1)
    print(node.all_processes["raylet"][0].process.pid, flush=True)
cluster.shutdown()
