"""What the evaluation raises on purpose; printed as one line, exit code 2."""

from vita.errors import VitaError


class EvalError(VitaError):
    """A suite, metric, judge, run folder or input file cannot be used as asked."""
