"""The load on the service: golden examples, offered at the times of an open-loop schedule.

    ekiben run                                                        # as a step of the release
    EKIBEN_GOLDEN=… locust -f loadtests/locustfile.py --host URL      # by hand, with Locust's web page
    EKIBEN_GOLDEN=… locust -f loadtests/locustfile.py --host URL --headless --rate 50 --duration 10
    EKIBEN_GOLDEN=… locust … --processes 4 --rate-profile 0:100,60:2000 --slo p99=250ms,error_rate=1%

EKIBEN_GOLDEN names the golden.json of the model under test; `locust --help` lists the options, under "open-loop load".
With --processes, or --master and --worker on other shells or machines, the schedule is shared out and one report
written; only the master needs the options and the golden answers. Override `example` to choose what is sent, `check`
to judge answers otherwise, `ask` for anything that is no HTTP; further users and tasks are plain Locust.
"""

from ekiben.loadtest.locust_user import OpenLoopUser


class Predict(OpenLoopUser):
    """Every arrival posts the next golden example; an answer other than its own is an error."""
