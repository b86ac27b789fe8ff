# docker build -t sol . && docker run -p 1883:1883 sol
#
# Inside a container the port is reachable only where it is published, so the broker listens on every interface. It lets
# anybody in. With TLS and users instead (the files stay yours, so the broker runs as you to read them):
#
#   docker run --rm -it -u "$(id -u):$(id -g)" -v "$PWD:/etc/sol" sol init /etc/sol --user alice --host "$(hostname)"
#   docker run -u "$(id -u):$(id -g)" -p 8883:8883 -v "$PWD:/etc/sol:ro" sol -c /etc/sol/sol.conf
#
# Metrics are served inside the container only, unless told otherwise:
#
#   docker run -p 1883:1883 -p 127.0.0.1:9883:9883 sol -a 0.0.0.0 --metrics 0.0.0.0:9883
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin sol

FROM debian:bookworm-slim
COPY --from=build /src/target/release/sol /usr/local/bin/sol
USER nobody
EXPOSE 1883 9883
ENTRYPOINT ["sol"]
CMD ["-a", "0.0.0.0"]
