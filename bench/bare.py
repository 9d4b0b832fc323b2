"""The bare endpoint: fixed bytes from the service's own framework and server, with nothing behind them."""

import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response

app = FastAPI()
BODIES = {path.name: path.read_bytes() for path in Path(os.environ["BODIES"]).iterdir()}


@app.get("/bare/{name}")
async def get_bytes(name: str) -> Response:
    """The bytes of this name."""
    return Response(BODIES[name], media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_config=None, access_log=False)  # as `orders serve` does
