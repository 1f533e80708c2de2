from typing import Any

from bench.loadgen.job import Plan

def run(plan: Plan) -> dict[str, Any]: ...
