"""``smoke``: proves the whole chain on this machine, and prints its own times."""

from morpheus_boot.config.settings import Invocation
from morpheus_boot.report.stdout import print_line
from morpheus_boot.services.signals import run_to_end
from morpheus_boot.smoke.chain import run_chain
from morpheus_boot.smoke.steps import table

# Long enough for an inner boot to end after its own grace, and for the rest to be killed.
_GRACE_S = 15.0


def run(invocation: Invocation) -> None:
    """Runs the chain and prints its table. Raises MorpheusError: the first failure."""
    report = run_to_end(lambda stopping: run_chain(invocation.settings, stopping), grace_s=_GRACE_S)
    boots = [step.seconds for step in report.steps if "boot" in step.name]
    print_line(table(report.steps))
    print_line(
        f"smoke passed with {report.target.description}:"
        f" cold {boots[0]:.2f} s, warm {boots[-1]:.2f} s"
    )
