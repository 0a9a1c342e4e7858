"""The load on the service: golden examples, offered at the times of an open-loop schedule.

    ekiben run                                                        # as a step of the release
    EKIBEN_GOLDEN=… locust -f loadtests/locustfile.py --host URL      # by hand, with Locust's web page
    EKIBEN_GOLDEN=… locust -f loadtests/locustfile.py --host URL --headless --rate 50 --duration 10

EKIBEN_GOLDEN names the golden.json of the model under test. Override `example` to send something else, `wrong` to
judge answers otherwise; further users and tasks are plain Locust.
"""

from ekiben.loadtest.locust_user import OpenLoopUser


class Predict(OpenLoopUser):
    """Every arrival posts the next golden example; an answer other than its own is an error."""
