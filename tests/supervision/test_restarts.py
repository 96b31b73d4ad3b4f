"""A service that dies is started again with backoff; one that dies too often ends the run."""

import os
import signal
import sys
from pathlib import Path

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.run.course import Course, Stage
from morpheus_boot.run.events import Exited, Signalled
from morpheus_boot.run.process import ServiceSpec
from morpheus_boot.run.restarts import Convalescence, Restarts
from morpheus_boot.run.supervisor import Supervisor

RULE = Restarts(most=5, within_s=60, first_s=0.5, longest_s=8)


def up() -> Course:
    return Course(grace_s=4, recovery=Convalescence(RULE))


def died(service: str = "comfyui") -> Exited:
    return Exited(service, 1)


def test_each_death_doubles_the_backoff() -> None:
    course, now, waits = up(), 100.0, []
    for _ in range(4):
        course = course.after(died(), now)
        (due,) = course.due
        waits.append(due.at - now)
        course, now = course.started("comfyui"), due.at

    assert waits == [0.5, 1, 2, 4]


def test_the_fifth_death_in_a_minute_is_giving_up_with_its_exit_code() -> None:
    course = up()
    for now in range(5):
        course = course.after(died(), float(now)).started("comfyui")

    assert course.stage is Stage.STOPPING
    assert isinstance(course.error, ServiceFailed)
    assert "exit code 1" in str(course.error)


def test_deaths_more_than_a_minute_apart_are_no_reason_to_give_up() -> None:
    course = up()
    for now in range(0, 600, 61):
        course = course.after(died(), float(now)).started("comfyui")

    assert course.stage is Stage.UP


def test_one_services_deaths_do_not_count_for_the_other() -> None:
    course = up()
    for now in range(4):
        course = course.after(died("comfyui"), float(now)).started("comfyui")
    course = course.after(died("fileserver"), 4.0)

    assert [d.service for d in course.due] == ["fileserver"]
    assert course.due[0].at == 4.5


def test_what_is_not_wanted_any_more_is_not_started_again() -> None:
    course = up().after(died(), 0.0).after(Signalled(signal.SIGTERM), 0.1)

    assert course.due == ()


def test_a_killed_service_comes_back_and_the_other_never_notices(tmp_path: Path) -> None:
    running: dict[str, list[int]] = {"one": [], "two": []}

    def service(name: str) -> ServiceSpec:
        code = "import time; print('up', flush=True); time.sleep(60)"
        return ServiceSpec(name, (sys.executable, "-c", code), dict(os.environ), tmp_path, 1)

    def on_line(name: str, _line: str) -> None:
        running[name].append(1)
        if running == {"one": [1], "two": [1]}:
            os.kill(pids["one"], signal.SIGKILL)
        elif running["one"] == [1, 1]:
            os.kill(os.getpid(), signal.SIGTERM)

    pids: dict[str, int] = {}
    supervisor = Supervisor(
        on_line=on_line,
        on_service=lambda state: pids.update({state.name: state.pid or 0}),
        restarts=Restarts(first_s=0.01),
    )

    def story() -> None:
        supervisor.start(service("one"))
        supervisor.start(service("two"))

    assert supervisor.run(story) == signal.SIGTERM
    assert running == {"one": [1, 1], "two": [1]}
