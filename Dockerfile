FROM python:3.13-slim AS build

WORKDIR /src
# Two environments: what builds the wheel stays here, what runs it moves on, without even pip.
RUN python -m venv /build && python -m venv --without-pip /opt/file-service
COPY requirements.lock requirements-build.lock ./
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
    && /build/bin/pip --python /opt/file-service install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY file_service file_service
RUN /build/bin/pip --python /build wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /wheel . \
    && /build/bin/pip --python /opt/file-service install --no-cache-dir --no-deps --no-index /wheel/*.whl


FROM python:3.13-slim

# Numbers, so that an orchestrator can see that it is not root.
RUN groupadd --gid 10001 file-service \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /data --shell /usr/sbin/nologin file-service \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=build /opt/file-service /opt/file-service
ENV PATH="/opt/file-service/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    FILE_SERVICE_HOST=0.0.0.0 \
    FILE_SERVICE_PORT=8080 \
    FILE_SERVICE_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Alive, not ready: a database that is down is no reason to replace this container. http.client ignores proxy variables.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ['FILE_SERVICE_PORT']), timeout=4); \
service.request('GET', '/health/live'); \
sys.exit(service.getresponse().status != 200)"]
ENTRYPOINT ["file-service"]
CMD ["serve"]
