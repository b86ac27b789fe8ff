//! The directives about the process, its files and its numbers, and those of Mosquitto that change nothing here.

use super::directives::Directive;
use super::reader::fault;
use super::show::{one, optional, path};
use super::{Metrics, Sandbox};

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "include_dir",
        "PATH",
        "none",
        "A directory whose files that end in .conf are read here, in Mosquitto's order: A a B b.",
        |draft, reader| {
            draft.include = Some(reader.path()?);
            Ok(())
        },
    )
    .own()
    .repeated(),
    Directive::new(
        "set_tcp_nodelay",
        "true|false",
        "true",
        "Whether small packets leave at once.",
        |draft, reader| {
            draft.config.tcp_nodelay = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .restart()
    .shown(|config| one(config.tcp_nodelay)),
    Directive::new(
        "sys_interval",
        "SECONDS",
        "10",
        "How often the $SYS and $SOL topics are published; 0 publishes none.",
        |draft, reader| {
            draft.config.sys_interval = reader.limit(86_400)?.map(std::time::Duration::from_secs);
            Ok(())
        },
    )
    .own()
    .shown(|config| one(config.sys_interval.map_or(0, |interval| interval.as_secs()))),
    Directive::new(
        "metrics",
        "ADDRESS:PORT|off",
        "127.0.0.1:9883 if it is free",
        "Where metrics are served for Prometheus, with /healthz beside them.",
        |draft, reader| {
            draft.config.metrics = reader.with(metrics)?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| match config.metrics {
        Metrics::Off => one("off"),
        Metrics::Default => Vec::new(),
        Metrics::At(address) => one(address),
    }),
    Directive::new(
        "pid_file",
        "PATH",
        "none",
        "Where the process identifier is written; removed at the end.",
        |draft, reader| {
            draft.config.pid_file = Some(reader.path()?);
            Ok(())
        },
    )
    .restart()
    .shown(|config| path(config.pid_file.as_deref())),
    Directive::new(
        "user",
        "NAME",
        "sol, mosquitto or nobody, the first that there is; in a sol file who starts the broker",
        "Whom the process belongs to once its ports are bound, if root starts it.",
        |draft, reader| {
            draft.config.user = Some(reader.word()?.text.to_owned());
            if !draft.host.is_root {
                let text = "user has no effect: root does not start the broker, so it belongs to who does";
                reader.warnings.push((0, text.to_owned()));
            }
            Ok(())
        },
    )
    .restart()
    .shown(|config| optional(config.user.as_ref())),
    Directive::new(
        "sandbox",
        "on|off|required",
        "on",
        "Whether the broker restricts itself to its own files and system calls, as far as the kernel can; `required` does not start where it cannot.",
        |draft, reader| {
            draft.config.sandbox = reader.with(|text| match text {
                "on" => Ok(Sandbox::On),
                "off" => Ok(Sandbox::Off),
                "required" => Ok(Sandbox::Required),
                _ => Err(format!("`{text}` is none of on, off, required")),
            })?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.sandbox)),
    Directive::new(
        "retry_interval",
        "SECONDS",
        "none",
        "How often Mosquitto once sent messages again.",
        |_, reader| reader.number(i64::from(i32::MIN), i64::from(i32::MAX)).map(drop),
    )
    .own()
    .without_effect("messages are sent again when a client comes back, and never before, as in Mosquitto since 1.5"),
    Directive::new(
        "allow_duplicate_messages",
        "true|false",
        "true",
        "Whether a client may get a message once for each Subscription that it meets.",
        |_, reader| reader.switch().map(drop),
    )
    .own()
    .without_effect("Mosquitto takes it without effect, too"),
    Directive::new(
        "packet_buffer_size",
        "BYTES",
        "4096",
        "How much Mosquitto reads at once.",
        |_, reader| reader.number(0, u16::MAX).map(drop),
    )
    .own()
    .without_effect("how much is read at once is chosen by what comes"),
    Directive::new(
        "enable_control_api",
        "false",
        "false",
        "Whether the broker is administered by topics.",
        |_, reader| match reader.word()? {
            token if token.text == "false" => Ok(()),
            token => Err(fault(token, "administration by $CONTROL topics is not supported")),
        },
    )
    .own(),
];

/// Reads where metrics are served.
pub(crate) fn metrics(text: &str) -> Result<Metrics, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Metrics::Off);
    }
    text.parse()
        .map(Metrics::At)
        .map_err(|_| format!("`{text}` is neither ADDRESS:PORT nor off"))
}
