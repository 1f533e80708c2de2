from typing import Any

from fastlog.loadgen.job import Plan

def run(plan: Plan) -> dict[str, Any]: ...
