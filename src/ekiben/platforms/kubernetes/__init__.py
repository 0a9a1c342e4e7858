"""Blue and green on Kubernetes, with no controller: a few careful API calls.

platform.py  the adapter: what a command does, action by action; deliver.py: a whole release, with its judges
state.py     what is kept in the Services' and Deployments' annotations, and the patches that change it
hold.py      what a command has read and claimed; colour.py, traffic.py, common.py: what it does there
rollout.py   why a colour is not ready
smoke.py, watch.py, metrics.py   the judges before and after the switch
api.py       the API server: requests, and its errors in our words
"""
