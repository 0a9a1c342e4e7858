"""What a running tracker tells Prometheus."""

from ekiben.tracker.state import State

_TABLES = {"projects": "projects", "runs": "runs", "versions": "artifacts WHERE state = 'COMMITTED'"}


def render(state: State) -> str:
    """The text format, version 0.0.4."""
    lines = [
        "# TYPE ekiben_tracker_operations_total counter",
        *(
            f'ekiben_tracker_operations_total{{operation="{name}"}} {count}'
            for name, count in sorted(state.operations.items())
        ),
        "# TYPE ekiben_tracker_unknown_operations_total counter",
        f"ekiben_tracker_unknown_operations_total {state.unknown.total()}",
        "# TYPE ekiben_tracker_received_bytes_total counter",
        f"ekiben_tracker_received_bytes_total {state.received_bytes}",
        "# TYPE ekiben_tracker_sent_bytes_total counter",
        f"ekiben_tracker_sent_bytes_total {state.sent_bytes}",
        "# TYPE ekiben_tracker_missing_blobs gauge",
        f"ekiben_tracker_missing_blobs {len(state.missing)}",
    ]
    with state.store.read() as db:
        for name, table in _TABLES.items():
            count = db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            lines += [f"# TYPE ekiben_tracker_{name} gauge", f"ekiben_tracker_{name} {count}"]
    return "\n".join(lines) + "\n"
