"""`ekiben workflow …` as a person calls it: against the fake API server, with Argo's fake controller, on a socket.

It stands on Argo Workflows 4.1 (see test_argo_submit.py). Time runs twentyfold there.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.fakes.argo import controller as fake
from tests.fakes.argo.controller import Controller
from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.http import served, write_kubeconfig
from tests.unit.test_argo_submit import RELEASE

ROOT = Path(__file__).parents[2]
PROJECT = """
[tool.ekiben.environments.staging]
context = "fake"
namespace = "ml"
[tool.ekiben.environments.elsewhere]
context = "no-such-context"
"""
AT_ONCE = json.loads(json.dumps(RELEASE))
AT_ONCE["spec"]["templates"][2]["dag"]["tasks"] = [{"name": "train", "template": "train"}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bentofile.yaml").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def cluster(root: Path) -> Iterator[Cluster]:
    made = fake.cluster()
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}}, "")
    made.create(AT_ONCE, "ml")
    with served(made, speed=20) as url:
        write_kubeconfig(root / "kubeconfig", url, token="planted-token", namespace="ml")
        yield made


@pytest.fixture
def controller(cluster: Cluster) -> Controller:
    return Controller(cluster)


def started(root: Path, *args: str, **env: str) -> "subprocess.Popen[str]":
    variables = {**os.environ, "KUBECONFIG": str(root / "kubeconfig"), **env}
    variables.pop("ARGO_SERVER", None) if "ARGO_SERVER" not in env else None
    return subprocess.Popen(
        [sys.executable, "-m", "ekiben.cli", *args],
        cwd=root,
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ekiben(root: Path, *args: str, code: int = 0, **env: str) -> tuple[str, str]:
    """What it wrote to stdout and stderr."""
    process = started(root, *args, **env)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    assert "planted-token" not in out + err
    assert "Traceback" not in err
    return out, err


def test_submitted_and_waited_for(root: Path, cluster: Cluster, controller: Controller) -> None:
    cluster.kubelet.behave("", start_s=40)
    controller.behave("train", seconds=20)
    out, err = ekiben(root, "workflow", "submit", "release", "--env", "staging", "--param", "recipe=cats", "--wait")
    assert out.endswith(" Succeeded\n")
    assert "train                Pending: ContainerCreating" in err
    assert "train                Running" in err
    assert re.search(r"^train +Succeeded after \d+ s$", err, re.M)
    (sent,) = cluster.objects("workflows", "ml")
    assert sent["spec"]["workflowTemplateRef"] == {"name": "release"}


def test_json_is_one_object(root: Path, cluster: Cluster, controller: Controller) -> None:
    out, _ = ekiben(root, "workflow", "submit", "release", "--wait", "--json")
    told = json.loads(out)
    assert told["phase"] == "Succeeded"
    assert [step["name"] for step in told["steps"]] == ["train", "onExit.conclude"]
    out, _ = ekiben(root, "workflow", "submit", "release", "--json")
    assert json.loads(out)["namespace"] == "ml"


def test_a_failure_is_told_and_is_the_exit_code(root: Path, cluster: Cluster, controller: Controller) -> None:
    controller.behave("train", exit_code=1, log="reading\nno such file: data.csv")
    out, err = ekiben(root, "workflow", "submit", "release", "--wait", "--json", code=8)
    assert "no such file: data.csv" in err
    assert json.loads(out)["error"]["kind"] == "StepError"
    run = cluster.objects("workflows", "ml")[0]["metadata"]["name"]
    _, err = ekiben(root, "workflow", "watch", run, code=8)
    assert "no such file: data.csv" in err
    out, _ = ekiben(root, "workflow", "logs", run, "--step", "train", "--tail", "1")
    assert out == "no such file: data.csv\n" * 3
    out, _ = ekiben(root, "workflow", "logs", run)
    assert "train                | reading\n" in out


def test_why_it_waits_is_shown(root: Path, cluster: Cluster, controller: Controller) -> None:
    cluster.kubelet.behave("example/pipeline", unschedulable="1 Insufficient nvidia.com/gpu")
    _, err = ekiben(root, "workflow", "submit", "release", "--wait", "--timeout", "2", code=4)
    assert "Pending: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu" in err
    assert "is not over after 2 s: train Pending (Unschedulable" in err


def test_stopped(root: Path, cluster: Cluster, controller: Controller) -> None:
    controller.behave("train", seconds=100_000)
    run = ekiben(root, "workflow", "submit", "release")[0].strip()
    assert ekiben(root, "workflow", "stop", run)[0] == f"{run} ends after its exit handler\n"
    assert "Stopped with strategy" in ekiben(root, "workflow", "watch", run, code=8)[1]
    assert "is over already" in ekiben(root, "workflow", "stop", run, code=2)[1]


def test_a_dry_run_changes_nothing(root: Path, cluster: Cluster) -> None:
    out, _ = ekiben(root, "workflow", "submit", "release", "--dry-run", "--param", "recipe=cats")
    assert yaml.safe_load(out)["spec"]["arguments"]["parameters"] == [{"name": "recipe", "value": "cats"}]
    assert cluster.objects("workflows", "ml") == []


def test_a_file_runs_as_it_stands(root: Path, cluster: Cluster, controller: Controller) -> None:
    (root / "mine.yaml").write_text(yaml.safe_dump(AT_ONCE))
    ekiben(root, "workflow", "submit", "mine.yaml", "--wait")
    assert "templates" in cluster.objects("workflows", "ml")[0]["spec"]
    (root / "other.yaml").write_text("- a list")
    assert "holds no workflow" in ekiben(root, "workflow", "submit", "other.yaml", code=2)[1]


def test_a_cluster_that_holds_an_older_workflow_is_noted(root: Path, cluster: Cluster, controller: Controller) -> None:
    (root / "workflows").mkdir()
    (root / "workflows" / "release.yaml").write_text(yaml.safe_dump(AT_ONCE))
    assert "note:" not in ekiben(root, "workflow", "submit", "release")[1]
    newer = json.loads(json.dumps(AT_ONCE))
    newer["spec"]["arguments"]["parameters"][0]["value"] = "cats"
    (root / "workflows" / "release.yaml").write_text(yaml.safe_dump(newer))
    assert "`ekiben workflow apply release` brings it there" in ekiben(root, "workflow", "submit", "release")[1]


def test_a_workflow_is_named_by_its_module_too(root: Path, cluster: Cluster, controller: Controller) -> None:
    """As the README's commands do: `workflow apply release_on_cluster`, then `workflow submit release_on_cluster`."""
    made = json.loads(json.dumps(AT_ONCE))
    made["metadata"]["name"] = "release-on-cluster"
    cluster.create(json.loads(json.dumps(made)), "ml")
    (root / "workflows").mkdir()
    made["spec"]["arguments"]["parameters"][0]["value"] = "newer"
    (root / "workflows" / "release_on_cluster.yaml").write_text(yaml.safe_dump(made))
    run, note = ekiben(root, "workflow", "submit", "release_on_cluster")
    assert run.startswith("release-on-cluster-")
    assert "`ekiben workflow apply release_on_cluster` brings it there" in note


def test_logs_are_followed_to_the_end(root: Path, cluster: Cluster, controller: Controller) -> None:
    lines = [f"line {number}" for number in range(100)]
    controller.behave("train", seconds=100, log="\n".join(lines))
    run = ekiben(root, "workflow", "submit", "release")[0].strip()
    out, _ = ekiben(root, "workflow", "logs", run, "--follow")
    assert out.splitlines() == [f"train                | {line}" for line in lines]


def test_a_suspended_run_is_resumed(root: Path, cluster: Cluster, controller: Controller) -> None:
    (root / "release.yaml").write_text(yaml.safe_dump(RELEASE))
    run = ekiben(root, "workflow", "submit", "release.yaml")[0].strip()
    shown = started(root, "workflow", "watch", run)
    assert shown.stderr is not None
    while "waits for decision (approve|reject)" not in (line := shown.stderr.readline()):
        assert line, "the watch ended"
    seen = ekiben(root, "workflow", "resume", run, "--output", "decision=maybe", code=2)[1]
    assert "one of approve, reject" in seen
    out, _ = ekiben(root, "workflow", "resume", run, "--step", "approve", "--output", "decision=approve")
    assert out == f"{run} goes on after approve\n"
    shown.communicate(timeout=60)
    assert shown.returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "seen"),
    [
        (("submit", "nothing"), 3, "no WorkflowTemplate nothing in http://"),
        (("submit", "release", "--param", "recipee=x"), 2, "release has no parameter 'recipee'"),
        (("submit", "release", "--param", "recipe"), 2, "is not name=value"),
        (("submit", "release", "--env", "elsewhere"), 2, "no context 'no-such-context'"),
        (("submit", "release", "--env", "nowhere"), 3, "no environment 'nowhere'"),
        (("watch", "nothing"), 3, "no Workflow nothing in http://"),
        (("logs", "nothing"), 3, "no Workflow nothing"),
        (("stop", "nothing"), 3, "no Workflow nothing"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    root: Path, cluster: Cluster, args: tuple[str, ...], code: int, seen: str
) -> None:
    assert seen in ekiben(root, "workflow", *args, code=code)[1]


def test_who_stops_watching_does_not_stop_the_run(root: Path, cluster: Cluster, controller: Controller) -> None:
    import signal

    controller.behave("train", seconds=100_000)
    process = started(root, "workflow", "submit", "release", "--wait")
    assert process.stderr is not None
    while "train                Running" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on" in err
    assert cluster.objects("workflows", "ml")[0]["status"]["phase"] == "Running"


def test_a_terminal_gets_a_table_that_moves(root: Path, cluster: Cluster, controller: Controller) -> None:
    controller.behave("train", seconds=40)
    shown, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ekiben.cli", "workflow", "submit", "release", "--wait"],
        cwd=root,
        env={**os.environ, "KUBECONFIG": str(root / "kubeconfig"), "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    try:
        while chunk := os.read(shown, 65536):
            seen += chunk
    except OSError:  # the other end has closed: that is how a terminal ends on Linux
        pass
    assert process.wait(timeout=60) == 0
    text = seen.decode()
    assert "Running" in text
    assert text.rindex("onExit.conclude") < text.rindex("Succeeded")


def test_what_the_readme_submits_is_what_it_has_applied(tmp_path: Path, cluster: Cluster) -> None:
    """The project's own workflows, in the namespace that its own pyproject.toml names; nothing runs."""
    text = (ROOT / "README.md").read_text()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models-staging"}}, "")
    applied = {name for line in re.findall(r"ekiben workflow apply ([a-z_ ]+)", text) for name in line.split()}
    submitted = [shlex.split(line) for line in re.findall(r"(?m)^ekiben (workflow submit .*)$", text)]
    assert len(applied) > 2 and len(submitted) > 1
    kubeconfig = str(tmp_path / "kubeconfig")
    ekiben(ROOT, "workflow", "apply", *sorted(applied), "--env", "staging", KUBECONFIG=kubeconfig)
    for command in submitted:
        words = [word for word in command if word != "--wait"]
        made = yaml.safe_load(ekiben(ROOT, *words, "--dry-run", KUBECONFIG=kubeconfig)[0])
        given = {f"{each['name']}={each['value']}" for each in made["spec"]["arguments"]["parameters"]}
        assert given == {word for at, word in enumerate(words) if words[at - 1] == "--param"}
        assert cluster.get("workflowtemplates", made["spec"]["workflowTemplateRef"]["name"], "models-staging")
