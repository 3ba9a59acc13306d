"""For what watches the service: whether it lives, and whether it can take requests."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from dermalert.clinic.access import anyone
from dermalert.clinic.service import Here

router = APIRouter(tags=["health"], dependencies=[anyone()])

LEAST_ROOM = 200_000_000  # bytes free on the disk of pictures, below which the service is not ready for more


class Alive(BaseModel):
    """That the process answers."""

    alive: bool = True


class Ready(BaseModel):
    """What the service needs to take a picture."""

    ready: bool
    database: bool = Field(description="Whether the database answers.")
    disk: bool = Field(description="Whether there is room for pictures.")
    model: bool = Field(
        description="Whether the bundle in its folder is the one in use. If not, pictures are still taken: they are "
        "scored by the one before, or wait. The log says why."
    )


@router.get("/healthz", summary="Whether the process answers")
async def healthz() -> Alive:
    """Restart the service where this does not answer. It looks at nothing else."""
    return Alive()


@router.get("/readyz", summary="Whether pictures can be taken", responses={503: {"model": Ready}})
def readyz(response: Response, service: Here) -> Ready:
    """Send no requests here while the answer is 503: the database does not answer, or the disk is full."""
    database = service.store.healthy()
    disk = shutil.disk_usage(service.settings.data).free >= LEAST_ROOM
    response.status_code = 200 if database and disk else 503
    return Ready(ready=database and disk, database=database, disk=disk, model=service.models.problem is None)
