"""Executes a workflow document on this machine as Argo would: which task starts when, with what, and how it all ends.

How one attempt at a step is made is another module's: see attempts.py. What Argo does, feature by feature, and what is
done here, is the table in tests/unit/test_conformance.py.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ekiben.errors import ConflictError, EkibenError, UsageError
from ekiben.files import locked
from ekiben.pipeline import decisions, document, expr, expression, nodes, values
from ekiben.pipeline.attempts import Call, Performer
from ekiben.pipeline.model import Document, Hook, Retry, Task, Template
from ekiben.pipeline.nodes import BAD, Event, Ledger, Memory, Node, Result, Try

Scope = Mapping[str, str | None]
POLL_SECONDS = 0.2
STOPPED, LATE = "stopped", "the workflow's deadline passed"


@dataclass(frozen=True)
class Given:
    """What a template is called with. `gates` bound how many of its own steps run at once."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    gates: tuple[threading.Semaphore, ...] = ()


class Engine:
    """One run of one document. Not reusable.

    `folder` receives a folder for each step, with its log, its arguments and its outputs. What it holds from a run of
    the same name that was cut off is not done again. `state` is for what outlives a run: locks and memoized outputs.
    """

    def __init__(
        self,
        document: Document,
        *,
        name: str,
        folder: Path,
        state: Path,
        parameters: Mapping[str, str],
        steps: Performer,
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        unknown = set(parameters) - set(document.arguments)
        if unknown:
            raise UsageError(
                f"{document.name} has no parameter {', '.join(sorted(unknown))}",
                wanted=f"any of {', '.join(sorted(document.arguments))}",
            )
        self.document, self.name, self.folder, self.steps = document, name, folder, steps
        arguments = {**document.arguments, **parameters}
        if missing := sorted(key for key, value in arguments.items() if value is None):
            raise UsageError(f"{document.name} needs a value for {', '.join(missing)}")
        self.globals: dict[str, str | None] = {f"workflow.parameters.{key}": v for key, v in arguments.items()}
        self.globals |= {
            "workflow.name": name,
            "workflow.uid": name,
            "workflow.namespace": "local",
            "workflow.status": "Running",
            "workflow.mainEntrypoint": document.entrypoint,
            "workflow.serviceAccountName": "local",
            "workflow.creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "workflow.parameters.json": json.dumps(
                [{"name": key, "value": value} for key, value in arguments.items()], separators=(",", ":")
            ),
        }
        self._tell, self._telling = tell, threading.Lock()
        self._ledger, self._memory, self._locks = Ledger(folder / "nodes"), Memory(state / "memo"), state / "locks"
        self._slots = threading.Semaphore(document.parallelism or max(4, os.cpu_count() or 4))
        self._halted, self._why = threading.Event(), ""
        self._went_on = False  # something was done that a run before had not done
        self.nodes: list[Node] = []

    def run(self) -> Result:
        """Execute the entrypoint, then the exit handler with the status it is to see."""
        started = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as after:
            if self.document.deadline is not None:
                timer = threading.Timer(self.document.deadline, self._halt, [LATE])
                timer.daemon = True
                timer.start()
                after.callback(timer.cancel)
            with self._locked(self.document.mutexes, "workflow"), self._hooked("", self.document.hooks, {}) as told:
                entry = self.document.templates[self.document.entrypoint]
                end = self._guarded("", lambda: self._template(entry, "", self._defaults(entry)))
                why = self._why
                phase = "Failed" if why else end.phase
                told(replace(end, phase=phase))
            self.globals["workflow.status"] = phase
            self.globals["workflow.duration"] = f"{time.monotonic() - started:.6f}"
            self.globals["workflow.failures"] = json.dumps(
                [
                    {"displayName": node.name, "message": node.message, "phase": node.phase,
                     "templateName": node.template}
                    for node in self.nodes
                    if node.phase in BAD
                ]
            )  # fmt: skip
            if self.document.exit:
                self._why = ""
                self._halted.clear()  # a stopped workflow still gets its exit handler
                self.steps.open()
                handler = self._hook(self.document.exit, "onExit", {}, {})
                if phase == "Succeeded" and handler.phase in BAD:
                    phase = handler.phase
        return Result(self.name, phase, tuple(self.nodes), self.folder, time.monotonic() - started, why == STOPPED)

    def stop(self) -> None:
        """End what runs and start nothing more, except the exit handler. May be called from a signal handler."""
        self._halt(STOPPED)

    def _halt(self, why: str) -> None:
        self._why = why
        self._halted.set()
        self.steps.end()

    def tell(self, event: Event) -> None:
        with self._telling:
            if event.node is not None:
                self.nodes.append(event.node)
            with contextlib.suppress(BrokenPipeError):  # nobody reads any more: the release goes on all the same
                self._tell(event)

    def _ended(self, node: Node) -> Node:
        self.tell(Event("end", node.name, node=node))
        return node

    def _defaults(self, template: Template) -> Given:
        """The entry point gets the workflow's own arguments, by name."""
        own = {key: self.globals.get(f"workflow.parameters.{key}") or value for key, value in template.inputs.items()}
        return Given({key: value for key, value in own.items() if value is not None})

    def _template(self, template: Template, name: str, given: Given) -> Node:
        """Run `template` as the node `name`: the names of the tasks above it and its own, joined by dots."""
        node = self._remembered(template, name, given)
        for key, shared in template.shared.items():
            if key in node.outputs:
                self.globals[f"workflow.outputs.parameters.{shared}"] = node.outputs[key]
        return node

    def _remembered(self, template: Template, name: str, given: Given) -> Node:
        scope = {**self.globals, **_inputs(given), "node.name": f"{self.name}.{name}"}
        with self._locked([values.fill(each, scope) for each in template.mutexes], name or template.name):
            memo = template.memo
            if memo is None:
                return self._retried(template, name, given, scope)
            key, cache = values.fill(memo.key, scope), values.fill(memo.cache, scope)
            known = self._memory.found(cache, key, memo.max_age)
            if known is not None:
                made = replace(known, name=name, started=time.time(), message=f"memoized as {key}")
                return self._ended(replace(made, template=template.name))
            node = self._retried(template, name, given, scope)
            if node.phase == "Succeeded":
                self._memory.keep(cache, key, node)
            return node

    def _retried(self, template: Template, name: str, given: Given, scope: Scope) -> Node:
        match template.kind:
            case "script":
                return self._script(template, name or template.name, given, scope)
            case "suspend":
                return self._suspend(template, name, given, scope)
        retry, attempt, started = template.retry, 0, time.monotonic()
        while True:
            node = self._dag(template, f"{name}({attempt})" if retry.phases else name, given, scope)
            pause = self._again(retry, attempt, node, started, scope)
            if pause is None:
                return node
            self.tell(Event("retry", name, f"{node.phase}; again in {pause:g} s"))
            self._halted.wait(pause)
            attempt += 1

    def _dag(self, template: Template, path: str, given: Given, outer: Scope) -> Node:
        started = time.time()
        scope, files = dict(outer), {f"inputs.artifacts.{key}": value for key, value in given.artifacts.items()}
        waits = {task.name: expression.dependencies(task.depends) for task in template.tasks}
        left = {task.name: task for task in template.tasks}
        done: dict[str, Node] = {}
        counted: dict[str, str] = {}  # phases, as far as they count for what this ends as
        running: dict[Future[Node], Task] = {}
        inner = Given(gates=(threading.Semaphore(template.parallelism),) if template.parallelism else ())

        def over(task: Task, node: Node) -> None:
            done[task.name] = node
            counted[task.name] = "Succeeded" if node.phase in task.tolerated else node.phase
            scope.update(_of(f"{template.kind}.{task.name}", node, self.document.templates.get(task.template)))
            prefix = f"{template.kind}.{task.name}.outputs.artifacts"
            files.update({f"{prefix}.{key}": value for key, value in node.artifacts.items()})

        with ThreadPoolExecutor(max_workers=max(len(left), 1)) as pool:
            while left or running:
                # Argo looks whether a branch has failed only when nothing runs any more.
                failed = template.fail_fast and not running and nodes.phase(waits, counted) in BAD
                for name in [name for name in left if failed or waits[name] <= set(done)]:
                    task = left.pop(name)
                    full = f"{path}.{name}" if path else name
                    results = {other: done[other].results for other in waits[name] if other in done}
                    why = self._why or ("another branch failed first" if failed else "")
                    if why or (task.depends and not expression.depends(task.depends, results)):
                        over(task, self._ended(Node(full, "Omitted", message=why)))
                    else:
                        work = self._bound(task, full, template.kind, {**self.globals, **scope}, dict(files), inner)
                        running[pool.submit(work)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    over(running.pop(future), future.result())
        phase = nodes.phase(waits, counted)
        outputs, artifacts = ({}, {}) if phase in BAD else _passed_up(template, scope, files)
        return Node(
            path, phase, time.time() - started, outputs=outputs, artifacts=artifacts, started=started,
            template=template.name,
        )  # fmt: skip

    def _bound(
        self, task: Task, full: str, kind: str, scope: Scope, files: Mapping[str, Path], inner: Given
    ) -> Callable[[], Node]:
        return lambda: self._guarded(full, lambda: self._task(task, full, kind, scope, files, inner))

    def _guarded(self, name: str, work: Callable[[], Node]) -> Node:
        """What cannot be worked out fails its own node, so that the exit handler still runs."""
        try:
            return work()
        except EkibenError as error:
            return self._ended(Node(name, "Error", message=str(error), started=time.time()))

    def _task(self, task: Task, name: str, kind: str, scope: Scope, files: Mapping[str, Path], inner: Given) -> Node:
        if task.loop is None:
            return self._call(task, name, kind, scope, files, inner)
        started, found = time.time(), values.items(task.loop, scope)
        if not found:
            return self._ended(Node(name, "Skipped", message="no items to run for"))

        def one(at: int, label: str, item: Mapping[str, str]) -> Node:
            here = f"{name}({at}:{label})"
            return self._guarded(here, lambda: self._call(task, here, kind, {**scope, **item}, files, inner))

        with ThreadPoolExecutor(max_workers=len(found)) as pool:
            waiting = [pool.submit(one, at, label, item) for at, (label, item) in enumerate(found)]
            return nodes.joined(name, [future.result() for future in waiting], started)

    def _call(self, task: Task, name: str, kind: str, scope: Scope, files: Mapping[str, Path], inner: Given) -> Node:
        if self._why:
            return self._ended(Node(name, "Omitted", message=self._why))
        called = self.document.templates[task.template]
        if task.when and not expression.when(asked := values.fill(task.when, scope)):
            return self._ended(Node(name, "Skipped", message=f"when {asked}"))
        given = replace(_given(called, task.parameters, task.artifacts, scope, files), gates=inner.gates)
        if not task.hooks:
            return self._template(called, name, given)
        with self._hooked(f"{kind}.{task.name}", task.hooks, scope, name, files) as told:
            node = self._template(called, name, given)
            told(node)
        return node

    @contextlib.contextmanager
    def _hooked(
        self, subject: str, hooks: tuple[Hook, ...], scope: Scope, name: str = "workflow",
        files: Mapping[str, Path] | None = None,
    ) -> Iterator[Callable[[Node], None]]:  # fmt: skip
        """Runs each hook once, when its expression first holds: while its subject runs, or with the node it is told.
        How a hook ends changes nothing for its subject."""
        left = {hook.name: hook for hook in hooks}
        ran: list[Future[Node]] = []
        with ThreadPoolExecutor(max_workers=max(len(hooks), 1)) as pool:

            def look(node: Node, ended: bool) -> None:
                of = _of(subject, node, None) if subject else {"workflow.status": node.phase}
                seen = {**self.globals, **scope, **of}
                found = {f"{subject}.outputs.artifacts.{key}": value for key, value in node.artifacts.items()}
                for hook in list(left.values()):
                    if hook.name == "exit" and not ended:
                        continue
                    if not hook.expression or expr.holds(hook.expression, seen):
                        del left[hook.name]
                        full = f"{name}.onExit" if hook.name == "exit" else f"{name}.hooks.{hook.name}"
                        ran.append(pool.submit(self._hook, hook, full, seen, {**(files or {}), **found}))

            if left:
                look(Node(name, "Running"), ended=False)
            yield lambda node: look(node, ended=True)
        for future in ran:
            future.result()

    def _hook(self, hook: Hook, name: str, scope: Scope, files: Mapping[str, Path]) -> Node:
        called, seen = self.document.templates[hook.template], {**self.globals, **scope}
        given = _given(called, hook.parameters, hook.artifacts, seen, files)
        own = {key: value for key, value in self._defaults(called).inputs.items() if key not in hook.parameters}
        given = replace(given, inputs={**given.inputs, **own})
        return self._guarded(name, lambda: self._template(called, name, given))

    def _script(self, template: Template, name: str, given: Given, scope: Scope) -> Node:
        if not self._went_on and (known := self._ledger.found(name, given.inputs)):
            return self._ended(replace(known, message="done before the run was cut off"))
        retry, attempt, started = template.retry, 0, time.monotonic()
        began, told = time.time(), False
        base = _unused(self.folder / "steps" / nodes.file_name(name))
        last: dict[str, str | None] = {}
        tries: list[Try] = []
        while True:
            seen = {**scope, "retries": str(attempt), **last}
            with contextlib.ExitStack() as held:
                for gate in (*given.gates, self._slots):
                    held.enter_context(gate)
                if self._why:
                    return self._ended(Node(name, "Omitted", message=self._why))
                if not told:
                    self.tell(Event("start", name))
                    began, told, self._went_on = time.time(), True, True
                at = time.monotonic()
                made = self.steps.run(
                    Call(
                        template=template,
                        name=name,
                        folder=base / f"attempt-{attempt}" if retry.phases else base,
                        inputs=given.inputs,
                        artifacts=given.artifacts,
                        env={key: values.fill(value, seen) for key, value in template.env.items()},
                        limit=_limit(template, seen, at - started),
                    ),
                    lambda line: self.tell(Event("line", name, line)),
                )
            node = Node(
                name=name, phase=made.phase, seconds=time.monotonic() - at, exit_code=made.exit_code,
                message=made.message, outputs=made.outputs, artifacts=made.artifacts,
                folder=base / f"attempt-{attempt}" if retry.phases else base, started=began, result=made.result,
                template=template.name,
            )  # fmt: skip
            tries.append(Try(time.time() - node.seconds, node.seconds, node.phase))
            pause = self._again(retry, attempt, node, started, scope)
            if pause is None:
                break
            last = _last(node)
            self.tell(Event("retry", name, f"{node.message}; again in {pause:g} s"))
            self._halted.wait(pause)
            attempt += 1
        node = replace(node, seconds=time.time() - began, tries=tuple(tries))
        if not self._why:  # what was ended from outside is done anew
            self._ledger.keep(node, given.inputs)
        return self._ended(node)

    def _again(self, retry: Retry, attempt: int, node: Node, started: float, scope: Scope) -> float | None:
        """The seconds to wait before the next attempt; None: there is none."""
        limit = None if retry.limit is None else int(values.fill(retry.limit, scope))
        if node.phase not in retry.phases or (limit is not None and attempt >= limit) or self._why:
            return None
        seen = {**scope, "retries": str(attempt), **_last(node)}
        if retry.expression and not expr.holds(values.fill(retry.expression, seen), seen):
            return None
        pause = retry.wait * retry.factor**attempt
        if retry.longest_wait is not None:
            pause = min(pause, retry.longest_wait)
        late = retry.max_seconds is not None and time.monotonic() - started + pause > retry.max_seconds
        return None if late else pause

    def _suspend(self, template: Template, name: str, given: Given, scope: Scope) -> Node:
        """Wait for somebody's decision, for its time, or for the workflow's end."""
        if not self._went_on and (known := self._ledger.found(name, given.inputs)):
            return self._ended(replace(known, message="decided before the run was cut off"))
        began = time.time()
        asked = {key: template.choices.get(key, ()) for key, source in template.outputs.items() if source.supplied}
        duration = values.fill(template.pause or "", scope)
        until = began + document.seconds(duration) if duration else None
        self.tell(Event("start", name))
        self._went_on = True
        decisions.ask(self.folder, decisions.Question(name, asked))
        self.tell(Event("line", name, f"waits for a decision: ekiben approve {self.name} --by … --why …"))
        outputs = None
        while outputs is None and not self._why and (until is None or time.time() < until):
            self._halted.wait(POLL_SECONDS)
            outputs = decisions.answer(self.folder, name)
        decisions.closed(self.folder, name)
        message = "" if outputs is not None else self._why or "its time was up"
        phase = "Failed" if self._why else "Succeeded"
        found = {key: (outputs or {}).get(key, source.default) for key, source in template.outputs.items()}
        if phase == "Succeeded" and None in found.values():
            phase, message = "Error", "nobody decided, and the output has no default"
        waited = time.time() - began
        node = Node(
            name, phase, waited, message=message, started=began, template=template.name,
            tries=(Try(began, waited, "Suspended"),),
            outputs={key: value for key, value in found.items() if value is not None},
        )  # fmt: skip
        if not self._why:
            self._ledger.keep(node, given.inputs)
        return self._ended(node)

    @contextlib.contextmanager
    def _locked(self, names: "list[str] | tuple[str, ...]", node: str) -> Iterator[None]:
        """Hold these mutexes, against all other runs on this machine too."""
        with contextlib.ExitStack() as held:
            for name in sorted(names):
                told = False
                while not self._why:
                    try:
                        held.enter_context(locked(self._locks / nodes.file_name(name), timeout=0))
                        break
                    except ConflictError:
                        if not told:
                            self.tell(Event("line", node, f"waits for the lock {name}"))
                        told = True
                        self._halted.wait(POLL_SECONDS)
            yield


def _inputs(given: Given) -> dict[str, str | None]:
    found: dict[str, str | None] = {f"inputs.parameters.{key}": value for key, value in given.inputs.items()}
    return found


def _given(
    called: Template,
    parameters: Mapping[str, str],
    artifacts: Mapping[str, str],
    scope: Scope,
    files: Mapping[str, Path],
) -> Given:
    inputs = {key: value for key, value in called.inputs.items() if value is not None}
    for key, text in parameters.items():
        if not (key in inputs and values.absent(text, scope)):
            inputs[key] = values.fill(text, scope)
    return Given(inputs, {key: files[source] for key, source in artifacts.items() if source in files})


def _passed_up(template: Template, scope: Scope, files: Mapping[str, Path]) -> tuple[dict[str, str], dict[str, Path]]:
    """The outputs of a DAG that has succeeded. UsageError where one comes to nothing, and has no default."""
    outputs = {}
    for key, source in template.outputs.items():
        try:
            said = source.expression
            outputs[key] = values.computed(said, scope) if said else values.fill(source.parameter, scope)
        except UsageError:
            if source.default is None:
                raise
            outputs[key] = source.default
    sources = {key: source.strip("{} ") for key, source in template.output_artifacts.items()}
    return outputs, {key: files[source] for key, source in sources.items() if source in files}


def _of(name: str, node: Node, called: Template | None) -> dict[str, str | None]:
    """The variables of a task that has ended, and of its outputs; of one that did not run, what it declares."""
    found: dict[str, str | None] = {f"{name}.status": node.phase, f"{name}.exitCode": str(node.exit_code)}
    if called and node.phase in ("Skipped", "Omitted"):
        outputs = {key: source.default for key, source in called.outputs.items()}
        return (
            found | {f"{name}.outputs.parameters.{k}": v for k, v in outputs.items()} | {f"{name}.outputs.result": None}
        )
    found |= {f"{name}.outputs.parameters.{key}" if key else f"{name}.outputs.parameters": value
              for key, value in node.outputs.items()}  # fmt: skip
    return found | {f"{name}.outputs.result": node.result}


def _last(node: Node) -> dict[str, str | None]:
    return {
        "lastRetry.exitCode": str(node.exit_code) if node.phase == "Failed" else "-1",
        "lastRetry.status": node.phase,
        "lastRetry.duration": str(int(node.seconds)),
        "lastRetry.message": node.message,
    }


def _limit(template: Template, scope: Scope, spent: float) -> float | None:
    limits = []
    if template.deadline:
        limits.append(float(values.fill(template.deadline, scope)))
    if template.timeout:
        limits.append(document.seconds(values.fill(template.timeout, scope)) - spent)
    return min(limits, default=None)


def _unused(path: Path) -> Path:
    """That folder, or one beside it: what a run that was cut off left there stays to be read."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}~{number}")
    return found
