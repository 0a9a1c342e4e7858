"""The errors of the API server, as Status bodies (k8s.io/apimachinery/pkg/api/errors)."""

from typing import Any


class ApiFailure(Exception):
    """An answer with a Status body."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def body(self) -> dict[str, Any]:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return {**status, "code": self.code}


def details(group: str, kind: str, name: str = "", **more: Any) -> dict[str, Any]:
    made = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in made.items() if value not in ("", None, [])}


def qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiFailure:
    return ApiFailure(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', details(group, plural, name))


def no_such_path() -> ApiFailure:
    return ApiFailure(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> ApiFailure:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return ApiFailure(409, "AlreadyExists", message, details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str) -> ApiFailure:
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return ApiFailure(409, "Conflict", message, details(group, plural, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def forbidden(group: str, plural: str, name: str, why: str) -> ApiFailure:
    who = f'{qualified(group, plural)} "{name}"' if name else qualified(group, plural)
    return ApiFailure(403, "Forbidden", f"{who} is forbidden: {why}", details(group, plural, name))


def bad_request(message: str) -> ApiFailure:
    return ApiFailure(400, "BadRequest", message)


def internal(message: str) -> ApiFailure:
    return ApiFailure(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def invalid(group: str, kind: str, name: str, causes: list[dict[str, str]]) -> ApiFailure:
    """422 from validation; causes as `cause` makes them."""
    texts = [f"{each['field']}: {each['message']}" for each in causes]
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    message = f'{qualified(group, kind)} "{name}" is invalid: {listed}'
    return ApiFailure(422, "Invalid", message, details(group, kind, name, causes=causes))


def cause(reason: str, field: str, message: str) -> dict[str, str]:
    return {"reason": f"FieldValue{reason}", "message": message, "field": field}


def patch_failed() -> ApiFailure:
    """A JSON patch that does not apply, a failed `test` included: what failed is not said."""
    return ApiFailure(422, "Invalid", "the server rejected our request due to an error in our request", {})
