//! The directives that bound how fast clients may ask for something, and how many one address or one user may be.

use super::directives::{Directive, Scope};
use super::reader::{Fault, Reader};
use super::show::{one, optional};
use super::units::show_size;
use sol_transport::Rates;

/// What all listeners together, or the client of any of them, may ask for; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Demand {
    /// Packets of one client in a second, acknowledgements left out.
    pub messages_rate_max: u32,
    /// Bytes of one client in a second.
    pub bytes_rate_max: u32,
    /// Connections accepted in a second.
    pub connect_rate_max: u32,
    /// Connections of one address at a time.
    pub per_address_max: u32,
    /// Connections of one User Name at a time.
    pub per_user_max: u32,
}

/// What one listener, or each of its clients, may ask for; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListenerDemand {
    /// Instead of what is said of all.
    pub messages_rate_max: Option<u32>,
    /// Instead of what is said of all.
    pub bytes_rate_max: Option<u32>,
    /// Beside what holds for all together.
    pub connect_rate_max: u32,
    /// Beside what holds for all together.
    pub per_address_max: u32,
    /// Beside what holds for all together.
    pub per_user_max: u32,
}

pub(crate) const ROWS: &[Directive] = &[
    Directive::new(
        "max_messages_rate",
        "COUNT",
        "0, which is no limit",
        "Packets that a client may send in a second, acknowledgements left out; one that sends more is not read for a while.",
        |draft, reader| {
            draft.config.limits.demand.messages_rate_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .shown(|config| one(config.limits.demand.messages_rate_max)),
    Directive::new(
        "max_bytes_rate",
        "SIZE",
        "0, which is no limit",
        "Bytes that a client may send in a second; one that sends more is not read for a while.",
        |draft, reader| {
            draft.config.limits.demand.bytes_rate_max = bytes_rate(reader)?;
            Ok(())
        },
    )
    .shown(|config| one(show_size(config.limits.demand.bytes_rate_max.into()))),
    Directive::new(
        "max_connect_rate",
        "COUNT",
        "0, which is no limit",
        "Connections accepted in a second at all listeners together; more wait in the system's queue.",
        |draft, reader| {
            draft.config.limits.demand.connect_rate_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .shown(|config| one(config.limits.demand.connect_rate_max)),
    Directive::new(
        "max_connections_per_address",
        "COUNT",
        "0, which is no limit",
        "Connections of one address (of IPv6 a /64) at a time; the next is closed before it is read.",
        |draft, reader| {
            draft.config.limits.demand.per_address_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .restart()
    .shown(|config| one(config.limits.demand.per_address_max)),
    Directive::new(
        "max_connections_per_user",
        "COUNT",
        "0, which is no limit",
        "Connections of one User Name at a time; the next is refused (0x97, 3.1.1: 3).",
        |draft, reader| {
            draft.config.limits.demand.per_user_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .shown(|config| one(config.limits.demand.per_user_max)),
    Directive::new(
        "listener_max_messages_rate",
        "COUNT",
        "what max_messages_rate says",
        "max_messages_rate of this listener's clients.",
        |draft, reader| {
            draft.part().listener.demand.messages_rate_max = Some(reader.number(0, u32::MAX)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .shown_each(|listener| optional(listener.demand.messages_rate_max)),
    Directive::new(
        "listener_max_bytes_rate",
        "SIZE",
        "what max_bytes_rate says",
        "max_bytes_rate of this listener's clients.",
        |draft, reader| {
            draft.part().listener.demand.bytes_rate_max = Some(bytes_rate(reader)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .shown_each(|listener| optional(listener.demand.bytes_rate_max.map(|rate| show_size(rate.into())))),
    Directive::new(
        "listener_max_connect_rate",
        "COUNT",
        "0, which is no limit but max_connect_rate",
        "Connections accepted in a second at this listener.",
        |draft, reader| {
            draft.part().listener.demand.connect_rate_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .shown_each(|listener| optional(some(listener.demand.connect_rate_max))),
    Directive::new(
        "listener_max_connections_per_address",
        "COUNT",
        "0, which is no limit but max_connections_per_address",
        "Connections of one address at this listener at a time.",
        |draft, reader| {
            draft.part().listener.demand.per_address_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(some(listener.demand.per_address_max))),
    Directive::new(
        "listener_max_connections_per_user",
        "COUNT",
        "0, which is no limit but max_connections_per_user",
        "Connections of one User Name at this listener at a time.",
        |draft, reader| {
            draft.part().listener.demand.per_user_max = reader.number(0, u32::MAX)?;
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .shown_each(|listener| optional(some(listener.demand.per_user_max))),
];

/// A number of which 0 is no limit.
pub(crate) fn some(max: u32) -> Option<u32> {
    (max > 0).then_some(max)
}

/// Bytes a second, of which fewer would not be kept to exactly.
fn bytes_rate(reader: &mut Reader<'_>) -> Result<u32, Fault> {
    let bytes = reader.size_or_none(u32::MAX.into())?;
    let bytes = bytes.map_or(0, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    if (1..Rates::BYTES_MIN).contains(&bytes) {
        let text = format!(
            "{bytes} bytes are too few, {} is the least; units are KB, MB and GB",
            Rates::BYTES_MIN
        );
        return Err(Fault { column: 0, text });
    }
    Ok(bytes)
}
