"""The answers that no route gives by itself: to a problem, to a malformed request, to a route that does not exist."""

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from hfsafemerge.localhub.problems import HubProblem, malformed


async def answer_problem(_: Request, problem: HubProblem) -> JSONResponse:
    """The status, the code and the text of a problem. A header holds one line of ASCII, the body the text as it is."""
    line = " ".join(problem.message.split()).encode("ascii", "backslashreplace").decode()
    headers = problem.headers | {"X-Error-Message": line} | ({"X-Error-Code": problem.code} if problem.code else {})
    return JSONResponse({"error": problem.message}, problem.status, headers)


async def answer_malformed(request: Request, error: RequestValidationError) -> JSONResponse:
    """What is wrong with a request, or that its path names something the server does not have, such as a Space."""
    if any(detail["loc"][0] == "path" for detail in error.errors()):
        return await unimplemented(request)
    return await answer_problem(request, malformed(error.errors()))


async def unimplemented(request: Request) -> JSONResponse:
    """That the server lacks a route, and which."""
    message = f"The local Hub does not implement {request.method} {request.url.path}."
    return await answer_problem(request, HubProblem(404, message))
