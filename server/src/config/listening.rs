//! The directives that say where to listen, what is spoken there, and what each listener allows.

use super::directives::{Directive, Scope};
use super::draft::Draft;
use super::reader::{Fault, Reader, fault};
use super::show::{one, optional, path};
use super::{Address, Listener, Protocol, SocketDomain, Versions};

/// Longest mount point, in bytes: topics have to stay below the protocol's 65,535 with it.
const MOUNT_POINT_BYTES_MAX: usize = 1024;
/// Networks of trusted proxies, and origins, of one listener.
const LIST_MAX: usize = 256;

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "listener",
        "PORT [HOST] | 0 /PATH",
        "1883 127.0.0.1",
        "A place to listen at: a TCP port on every interface or on HOST, or a Unix socket.",
        |draft, reader| draft.listener(reader),
    )
    .own()
    .repeated()
    .restart()
    .shown_each(|listener| {
        one(match &listener.address {
            Address::Unix(path) => format!("0 {}", path.display()),
            Address::Tcp { host: None, port } => port.to_string(),
            Address::Tcp { host: Some(host), port } => format!("{port} {host}"),
        })
    }),
    Directive::new(
        "port",
        "PORT",
        "none",
        "Short for one listener, at bind_address if that is given.",
        |draft, reader| {
            draft.port = Some((reader.number(1, u16::MAX)?, reader.place()));
            draft.go_on_with_default();
            Ok(())
        },
    )
    .own(),
    Directive::new(
        "bind_address",
        "HOST",
        "every interface",
        "Where `port` listens.",
        |draft, reader| {
            draft.bind_address = Some((reader.word()?.text.to_owned(), reader.place()));
            draft.go_on_with_default();
            Ok(())
        },
    )
    .own(),
    Directive::new(
        "protocol",
        "mqtt|websockets",
        "mqtt",
        "What is spoken at this listener.",
        protocol,
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| {
        one(match listener.protocol {
            Protocol::Mqtt => "mqtt",
            Protocol::WebSockets => "websockets",
        })
    }),
    Directive::new(
        "socket_domain",
        "ipv4|ipv6",
        "both",
        "The only family of addresses that this listener binds.",
        |draft, reader| {
            let domain = reader.with(|text| match text {
                "ipv4" => Ok(SocketDomain::Ipv4),
                "ipv6" => Ok(SocketDomain::Ipv6),
                _ => Err(format!("`{text}` is neither ipv4 nor ipv6")),
            })?;
            draft.part().listener.socket.domain = Some(domain);
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| {
        optional(listener.socket.domain.map(|domain| match domain {
            SocketDomain::Ipv4 => "ipv4",
            SocketDomain::Ipv6 => "ipv6",
        }))
    }),
    Directive::new(
        "bind_interface",
        "NAME",
        "every interface",
        "The only network interface by which peers reach this listener. Linux only.",
        |draft, reader| {
            draft.part().listener.socket.interface = Some(reader.word()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| optional(listener.socket.interface.as_ref())),
    Directive::new(
        "unix_socket_mode",
        "MODE",
        "what the umask leaves of 0777",
        "Permissions of this listener's Unix socket, in octal: who may write to it can connect.",
        |draft, reader| {
            let mode = reader.with(|text| {
                u32::from_str_radix(text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o777)
                    .ok_or_else(|| format!("`{text}` are no permissions: an octal number up to 0777"))
            })?;
            draft.part().listener.socket.unix_mode = Some(mode);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(listener.socket.unix_mode.map(|mode| format!("{mode:04o}")))),
    Directive::new(
        "unix_socket_owner",
        "USER[:GROUP] | :GROUP",
        "who starts the broker",
        "Who owns this listener's Unix socket.",
        |draft, reader| {
            draft.part().listener.socket.unix_owner = Some(reader.word()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(listener.socket.unix_owner.as_ref())),
    Directive::new(
        "mount_point",
        "PREFIX",
        "none",
        "What stands before every topic of this listener's clients, unseen by them.",
        mount_point,
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(listener.mount_point.as_ref())),
    Directive::new(
        "max_connections",
        "COUNT",
        "-1, which is no limit but the descriptors of the process",
        "Network Connections of this listener at a time.",
        |draft, reader| {
            draft.part().listener.connections_max = reader.count_or_none()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .shown_each(|listener| one(super::show::count(listener.connections_max))),
    Directive::new(
        "max_qos",
        "0|1|2",
        "2",
        "Maximum QoS of this listener's clients.",
        max_qos,
    )
    .own()
    .of(Scope::Listener)
    .shown_each(|listener| one(listener.qos_max)),
    Directive::new("maximum_qos", "0|1|2", "2", "An old name of max_qos.", max_qos)
        .own()
        .of(Scope::Listener),
    Directive::new(
        "max_topic_alias",
        "COUNT",
        "10",
        "Topic Alias Maximum of each client of this listener.",
        |draft, reader| {
            draft.part().listener.topic_alias_max = reader.number(0, u16::MAX)?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .shown_each(|listener| one(listener.topic_alias_max)),
    Directive::new(
        "max_topic_alias_broker",
        "COUNT",
        "10",
        "Topic Aliases that the broker uses towards each client of this listener that takes them.",
        |draft, reader| {
            draft.part().listener.topic_alias_broker_max = reader.number(0, u16::MAX)?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .shown_each(|listener| one(listener.topic_alias_broker_max)),
    Directive::new(
        "accept_protocol_versions",
        "3[,4[,5]]",
        "3, 4, 5",
        "The Protocol Levels that are spoken at this listener: MQTT 3.1, 3.1.1 and 5.0.",
        versions,
    )
    .own()
    .of(Scope::ListenerAbove)
    .shown_each(|listener| one(show_versions(listener))),
    Directive::new(
        "websockets_origin",
        "ORIGIN",
        "every page",
        "A page that may connect to this listener by WebSocket; may be given several times.",
        |draft, reader| {
            let token = reader.rest()?;
            let origins = &mut draft.part().listener.websockets.origins;
            if origins.len() == LIST_MAX {
                return Err(fault(token, format!("more than {LIST_MAX} origins")));
            }
            origins.push(token.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .repeated()
    .restart()
    .shown_each(|listener| listener.websockets.origins.clone()),
    Directive::new(
        "http_dir",
        "PATH",
        "none",
        "A directory of files that this listener serves to browsers, beside WebSocket; read at the start and at SIGHUP.",
        |draft, reader| {
            draft.part().listener.websockets.http_dir = Some(reader.path()?);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| path(listener.websockets.http_dir.as_deref())),
    Directive::new(
        "enable_proxy_protocol",
        "1|2",
        "none",
        "Each connection of this listener begins with such a header of a proxy, which says where the client is.",
        |draft, reader| {
            draft.part().proxy.version = Some(reader.number(1, 2)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(listener.proxy.as_ref().map(|proxy| proxy.version))),
    Directive::new(
        "proxy_protocol_from",
        "ADDRESS[/BITS]…",
        "none, which only a listener on this machine's own addresses may have",
        "The proxies that are believed; everybody else is not let in.",
        |draft, reader| reader.networks(&mut draft.part().proxy.trusted, LIST_MAX),
    )
    .own()
    .of(Scope::ListenerAbove)
    .repeated()
    .restart()
    .shown_each(|listener| {
        let trusted = listener.proxy.iter().flat_map(|proxy| &proxy.trusted);
        trusted.map(ToString::to_string).collect()
    }),
    Directive::new(
        "proxy_protocol_v2_require_tls",
        "true|false",
        "false",
        "Only clients are let in whose way to the proxy was encrypted.",
        |draft, reader| {
            draft.part().proxy.requires_tls = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(listener.proxy.as_ref().map(|proxy| proxy.requires_tls))),
];

fn protocol(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    draft.part().listener.protocol = reader.with(|text| match text {
        "mqtt" => Ok(Protocol::Mqtt),
        "websockets" => Ok(Protocol::WebSockets),
        "http_api" => Err("there is no http_api listener; numbers about the broker are served by `metrics`".to_owned()),
        _ => Err(format!("`{text}` is neither mqtt nor websockets")),
    })?;
    Ok(())
}

fn mount_point(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.rest()?;
    if token.text.len() > MOUNT_POINT_BYTES_MAX || token.text.contains(['+', '#']) || token.text.starts_with('$') {
        let text = format!("a mount point has at most {MOUNT_POINT_BYTES_MAX} bytes, no + or #, and no $ in front");
        return Err(fault(token, text));
    }
    draft.part().listener.mount_point = Some(token.text.to_owned());
    Ok(())
}

fn max_qos(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    draft.part().listener.qos_max = reader.number(0, 2)?;
    Ok(())
}

fn versions(draft: &mut Draft, reader: &mut Reader<'_>) -> Result<(), Fault> {
    let token = reader.rest()?;
    let mut versions = Versions {
        v31: false,
        v311: false,
        v5: false,
    };
    let levels = token.text.split([',', ' ', '\t']).filter(|level| !level.is_empty());
    for level in levels {
        match level {
            "3" => versions.v31 = true,
            "4" => versions.v311 = true,
            "5" => versions.v5 = true,
            _ => return Err(fault(token, format!("`{level}` is none of 3, 4, 5"))),
        }
    }
    draft.part().listener.versions = versions;
    Ok(())
}

fn show_versions(listener: &Listener) -> String {
    let Versions { v31, v311, v5 } = listener.versions;
    let levels = [(v31, "3"), (v311, "4"), (v5, "5")];
    let spoken: Vec<_> = levels
        .iter()
        .filter(|(spoken, _)| *spoken)
        .map(|(_, level)| *level)
        .collect();
    spoken.join(", ")
}
