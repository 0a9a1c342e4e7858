"""A fake of Argo Workflows, faithful where a client would notice.

from tests.fakes.argo.controller import Controller, cluster    its controller, on the fake Kubernetes API server
from tests.fakes.argo.server import served                     its server, over the same
"""
