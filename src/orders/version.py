"""The version of this service."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("orders")
except PackageNotFoundError:  # run from a checkout that was not installed (`uvicorn main:app`)
    VERSION = "0.2.0"
