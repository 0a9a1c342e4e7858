"""The receiver as a process."""

from pathlib import Path

from ekiben import listening
from ekiben.config import Project
from ekiben.errors import UsageError
from ekiben.pipeline import promotion
from ekiben.webhook import signature
from ekiben.webhook.app import Receiver, create_app

GRACE_SECONDS = 25  # below the 30 s that Kubernetes gives by default
SECRET, TOKEN = "EKIBEN_WEBHOOK_SECRET", "EKIBEN_WEBHOOK_TOKEN"


def serve(project: Project, host: str, port: int, secrets: Path | None, tokens: Path | None) -> None:
    """Serve until a signal ends it. UsageError without a trigger or a secret."""
    settings = project.settings.webhook
    receiver = Receiver(
        settings, promotion.connected(project), signature.kept(SECRET, secrets), signature.kept(TOKEN, tokens)
    )
    if not receiver.secrets():
        raise UsageError(
            "no secret: nobody could tell who sent an event",
            wanted=f"the secret of the webhook in W&B, in {SECRET} or in a file",
            next_step="name the file with --secret-file",
        )
    listening.run(create_app(receiver), "webhook", listening.listen(host, port), GRACE_SECONDS)
