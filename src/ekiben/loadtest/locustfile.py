"""The locustfile where a project has none of its own: golden examples by the schedule."""

from ekiben.loadtest.locust_user import OpenLoopUser


class Predict(OpenLoopUser):
    """Every arrival posts the next example; an answer other than its own is an error."""
