# Proves the whole chain in a fresh container, with nothing of the host's:
#   docker build -t morpheus-boot . && docker run --rm morpheus-boot
FROM python:3.12-slim
COPY . /opt/morpheus_config
# Makes the environment now, so that the container needs no network.
RUN ["/opt/morpheus_config/pod_start.sh", "--version"]
ENTRYPOINT ["/opt/morpheus_config/pod_start.sh"]
CMD ["smoke"]
