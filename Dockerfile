# The page, for a server with CPUs:
#   docker build -t mg-diffusion .
#   docker run --rm -p 7860:7860 --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges mg-diffusion
# Other models: -e MG_MODEL=OWNER/NAME -e HF_HOME=/models -v models:/models, a volume for what the Hub sends (docs/demo.md).
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /srv

# torch first and alone, at the pinned version and for CPUs: it is the largest layer, and the one that changes least.
COPY constraints.txt ./
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"

COPY pyproject.toml README.md LICENSE MANIFEST.in ./
COPY mg_diffusion mg_diffusion
COPY pipelines pipelines
COPY hub_cards/mg-bazaar hub_cards/mg-bazaar
RUN pip install -c constraints.txt ".[demo]" && rm -rf build mg_diffusion pipelines hub_cards *.egg-info
COPY demo demo

# Python's compiled files are there already, and what is written goes to /tmp: the root may be read-only.
RUN useradd --create-home page && install -d -o page /models && python -m compileall -q demo
USER page
ENV PYTHONDONTWRITEBYTECODE=1 GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 GRADIO_TEMP_DIR=/tmp/gradio \
    MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache HF_MODULES_CACHE=/tmp/modules
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/config', timeout=8)"]
CMD ["python", "-m", "demo.app"]
