# sqzb with CUDA. Build it in the checkout, and give it GPUs (NVIDIA Container Toolkit):
#   docker build -t sqzb .
#   docker run --rm --gpus all --ipc=host -v "$PWD/work:/work" sqzb pretrain phase1_128
# The base has only the driver's hooks: the wheel of torch brings its own CUDA libraries.
FROM nvidia/cuda:12.8.1-base-ubuntu22.04

# Triton and torch.compile call a C compiler, and need Python's headers.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/sqzb
ENV PATH=/opt/sqzb/bin:$PATH \
    PYTHONUNBUFFERED=1

WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY recipes ./recipes
COPY sqzb ./sqzb
RUN pip install --no-cache-dir -c constraints.txt '.[hf]' \
    && rm -rf /src/*

# Corpora and runs are written to /work: mount a folder there that user 1000 may write.
RUN useradd --create-home --uid 1000 sqzb \
    && mkdir /work \
    && chown sqzb:sqzb /work
USER sqzb
WORKDIR /work
ENTRYPOINT ["sqzb"]
CMD ["--help"]
