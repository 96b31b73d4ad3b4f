"""A service that dies is started again with backoff; one that dies too often ends the run."""

import os
import signal
import sys
from pathlib import Path

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.services.course import Course, Stage
from morpheus_boot.services.events import Exited, Signalled
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.restarts import Convalescence, Restarts
from morpheus_boot.services.supervisor import Supervisor
from tests.services.watched import child, signal_us

RULE = Restarts(most=5, alike=3, well_after_s=60, first_s=0.5, longest_s=8)


def up() -> Course:
    return Course(grace_s=4, recovery=Convalescence(RULE))


def died(
    service: str = "comfyui", *, lived_s: float = 0.0, code: int = 1, last_line: str = ""
) -> Exited:
    return Exited(service, code, tuple(filter(None, (last_line,))), lived_s)


def stage_after(*deaths: Exited) -> Stage:
    """Where a run stands after these deaths, each a minute after the one before."""
    course = up()
    for number, death in enumerate(deaths):
        course = course.after(death, number * 60.0).started(death.service)
    return course.stage


def test_each_death_doubles_the_backoff() -> None:
    course, now, waits = up(), 100.0, []
    for _ in range(4):
        course = course.after(died(), now)
        (due,) = course.due
        waits.append(due.at - now)
        course, now = course.started("comfyui"), due.at

    assert waits == [0.5, 1, 2, 4]


def test_the_fifth_death_in_a_row_is_giving_up_with_its_exit_code() -> None:
    course = up()
    for now in range(5):
        course = course.after(died(), float(now)).started("comfyui")

    assert course.stage is Stage.STOPPING
    assert isinstance(course.error, ServiceFailed)
    assert "exit code 1" in str(course.error)


def test_a_service_whose_start_takes_long_before_it_dies_is_given_up_all_the_same() -> None:
    assert stage_after(*[died(lived_s=59)] * 4) is Stage.UP
    assert stage_after(*[died(lived_s=59)] * 5) is Stage.STOPPING


def test_a_minute_of_life_forgives_the_deaths_before_it() -> None:
    assert stage_after(*[died(lived_s=61)] * 9) is Stage.UP
    assert stage_after(*[died()] * 4, died(lived_s=61), *[died()] * 4) is Stage.UP
    assert stage_after(*[died()] * 4, died(lived_s=61), *[died()] * 5) is Stage.STOPPING


def test_three_deaths_in_a_row_that_say_the_same_are_giving_up() -> None:
    usage = died(code=2, last_line="main.py: error: unrecognized arguments: --nonsense")

    assert stage_after(usage, usage) is Stage.UP
    assert stage_after(usage, usage, usage) is Stage.STOPPING
    assert stage_after(usage, died(last_line="another"), usage, usage) is Stage.UP


def test_three_deaths_by_a_signal_say_nothing_of_the_fourth() -> None:
    assert stage_after(*[died(code=-9, last_line="got prompt")] * 4) is Stage.UP


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


def test_how_long_a_service_lived_is_measured_from_its_own_start() -> None:
    starts: list[str] = []

    def on_line(_service: str, line: str) -> None:
        starts.append(line)
        if starts.count("ready") == 3:
            signal_us(signal.SIGTERM)

    supervisor = Supervisor(
        on_line=on_line,
        on_service=lambda _state: None,
        restarts=Restarts(most=2, well_after_s=1e-9, first_s=0.01),
    )

    assert supervisor.run(lambda: supervisor.start(child("one", "exit=1"))) == signal.SIGTERM
