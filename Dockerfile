# The daemon in a container: no root, a read-only root file system, one writable volume at /data.
# Nobody has built this image yet: tests hold its files and commands to what exists (tests/test_deploy.py), an engine has not.
#   docker build -t trading-bot .
#   docker run -d --name bot --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp \
#     -v bot-data:/data --stop-timeout 20 --restart on-failure trading-bot
FROM python:3.11-slim AS build
WORKDIR /build
COPY requirements.lock .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin bot && mkdir /data && chown bot:bot /data && chmod 700 /data
COPY --from=build /venv /venv
WORKDIR /app
COPY main.py config.py LICENSE ./
COPY modules modules
COPY policies policies
# With its own bytecode, for it can write none here: a start, and so a restart with a position open, is two seconds shorter.
RUN python -m compileall -q main.py config.py modules
# Settings are mounted: /settings/config.toml, and the key files it names. Without them it runs the demo.
RUN ln -s /settings/config.toml config.toml
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 BOT__STATE_DIR=/data/state BOT__LOG_DIR=/data/logs
USER bot
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "main.py", "status", "--healthy"]
ENTRYPOINT ["python", "main.py"]
CMD ["trade"]
