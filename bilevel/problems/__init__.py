"""Bilevel problems that are not speech recognition, each with the baselines that its literature compares with.

A problem module holds one class that keeps `bilevel.optim.problem.ConstrainedProblem` (losses, constraints, parameters,
`project_lower`), and besides

    project_upper() -> None                Move x, in place, to the nearest point of X.
    evaluate(y) -> dict[str, float]        Metrics of a response y (tensors like `lower_params`) at the present x.
    respond() -> list[Tensor]              The lower level's true solution at the present x, from an exact solver:
                                           what a user of x gets, whatever a method's own inner loop returned.

`descend.descend` moves x with a solver's gradient and records a trace of the metrics at the responses that the solver
holds. Data come in as files or tensors; commands (`bilevel.bin`) read options and write result.json.
"""
