"""A fake Kubernetes API server, faithful where a blue-green deployer would notice.

from tests.fakes.kubernetes.cluster import Cluster        the server as an object; `advance` lets time pass
from tests.fakes.kubernetes.http import served, transport, write_kubeconfig
from tests.fakes.kubernetes.traffic import ServiceProxy   what kube-proxy does, for real connections
"""
