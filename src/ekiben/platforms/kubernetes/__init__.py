"""Blue and green on Kubernetes, with no controller: a few careful API calls.

platform.py  the adapter: what a command does, action by action
state.py     what is kept in the Services' and Deployments' annotations, and the patches that change it
rollout.py   whether a Deployment is ready, and why not
api.py       the API server: requests, and its errors in our words
"""
