"""The route that tells the clients where Xet storage is."""

import logging
import time
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from hfsafemerge.localhub.access import ReadableRepo, SignedIn, TheHub, require_download
from hfsafemerge.localhub.problems import HubProblem

router = APIRouter()

SECONDS_OF_A_TOKEN = 3600


@router.get("/api/{kind}/{namespace}/{name}/xet-{mode}-token/{revision:path}")
def xet_token(mode: Literal["read", "write"], repo: ReadableRepo, user: SignedIn, hub: TheHub) -> JSONResponse:
    """Where the store is. Anyone who may write somewhere may write to it, as with LFS: it is the commit that counts."""
    if hub.xet is None:  # a client that asks for a Xet token never turns to LFS by itself
        message = "This local Hub has no Xet storage. Set HF_HUB_DISABLE_XET=1 before Python starts, or start it with --xet."
        logging.getLogger("uvicorn.error").warning(message)  # as the client shows its user no more than the status
        raise HubProblem(501, message)
    if mode == "read":
        require_download(user, repo)
    elif not user.writes:
        raise HubProblem(403, "Your token is read-only. Use one that may write.")
    answer = {"casUrl": hub.xet.address, "accessToken": "xet_local", "exp": int(time.time()) + SECONDS_OF_A_TOKEN}
    headers = {"X-Xet-Cas-Url": hub.xet.address, "X-Xet-Access-Token": "xet_local", "X-Xet-Token-Expiration": str(answer["exp"])}
    return JSONResponse(answer, headers=headers)
