# The service, without root, on a slim image. The embedded PostgreSQL is for development: name a DATABASE_URL.
# Requests need a key, and `orders keys create` in a container with the same settings makes one.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.txt pyproject.toml README.md LICENSE ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt
COPY src ./src
RUN /venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
RUN useradd --system --create-home --home-dir /home/orders orders
COPY --from=build /venv /venv
USER orders
WORKDIR /home/orders
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8000 ORDERS_ACCESS=closed
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/health\", timeout=2)"]
CMD ["orders", "serve"]
