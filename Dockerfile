# docker build -t sol . && docker run -p 1883:1883 sol
#
# Inside a container the port is reachable only where it is published, so the broker listens on every interface. It lets
# anybody in: mount a configuration with `allow_anonymous false` and a password file to change that,
# docker run -p 1883:1883 -v "$PWD/sol.conf:/etc/sol/sol.conf:ro" -v "$PWD/passwd:/etc/sol/passwd:ro" sol -a 0.0.0.0
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin sol

FROM debian:bookworm-slim
COPY --from=build /src/target/release/sol /usr/local/bin/sol
USER nobody
EXPOSE 1883
ENTRYPOINT ["sol"]
CMD ["-a", "0.0.0.0"]
