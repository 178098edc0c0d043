# One host: on SQLite unless told otherwise. The app is in /app, the task hub in /data; see docs/how-to/container.md.
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY requirements requirements
COPY durable_host durable_host
COPY providers providers
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.12-slim
COPY requirements/run.txt /tmp/run.txt
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --require-hashes -r /tmp/run.txt && pip install --no-cache-dir --no-deps /tmp/wheels/*.whl
RUN useradd --create-home --uid 10001 durable && mkdir /data && chown durable /data
COPY samples/hello /app
USER durable
VOLUME /data
EXPOSE 7071
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7071/health/ready', timeout=4)"]
CMD ["durable-host", "start", "/app", "--host", "0.0.0.0", "--port", "7071", "--storage", "sqlite:////data/hub.db", "--enable-auth"]
