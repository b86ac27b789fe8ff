//! Any packet that a version can say, read from a fuzzer's bytes: every packet type, every Property, every value that is
//! legal and no other.
//!
//! Packets borrow, so what they borrow from is made first: [`Lists`] holds what is no slice of the input.

use std::num::{NonZeroU16, NonZeroU32};

use arbitrary::{Arbitrary, Result, Unstructured};
use sol_codec::{
    AckProperties, ApplicationProperties, ApplicationPropertiesBuilder, Auth, AuthProperties, ConnAck,
    ConnAckProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Filters, Packet, PacketId,
    PacketType, ProtocolVersion, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS, ReasonCode,
    ReasonCodes, RetainHandling, SubAck, Subscribe, SubscribeProperties, SubscriptionId, SubscriptionIds,
    SubscriptionOptions, Subscriptions, TopicAlias, TopicFilter, TopicName, UnsubAck, Unsubscribe, UserProperties,
    Will, WillProperties,
};

/// The longest list of anything; a bound on work, not on what is legal.
const LIST_MAX: usize = 9;

/// What a packet may borrow beside the input.
#[derive(Debug)]
pub struct Lists<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    ids: Vec<SubscriptionId>,
    filters: Vec<(String, SubscriptionOptions)>,
    application: Vec<u8>,
    will_application: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Lists<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            pairs: pairs(u)?,
            ids: list(u, subscription_id)?,
            filters: filters(u)?,
            application: application(u)?,
            will_application: application(u)?,
        })
    }
}

/// A version, and a packet of it.
///
/// # Errors
/// As `arbitrary` has them.
pub fn with_packet<R>(u: &mut Unstructured<'_>, then: impl FnOnce(ProtocolVersion, &Packet<'_>) -> R) -> Result<R> {
    let version = *u.choose(&ProtocolVersion::ALL)?;
    let lists = Lists::arbitrary(u)?;
    let requests: Vec<_> = lists
        .filters
        .iter()
        .map(|(filter, options)| (valid_filter(filter), *options))
        .collect();
    let filters: Vec<_> = requests.iter().map(|(filter, _)| *filter).collect();
    let requests: Vec<_> = requests.into_iter().map(|request| said(request, version)).collect();
    let packet_type = packet_type(u, version)?;
    let codes = codes(u, packet_type, version)?;
    let mut maker = Maker {
        u,
        version,
        lists: &lists,
    };
    let packet = match packet_type {
        PacketType::Connect => Packet::Connect(maker.connect()?),
        PacketType::ConnAck => Packet::ConnAck(maker.connack()?),
        PacketType::Publish => Packet::Publish(maker.publish()?),
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp => maker.ack(packet_type)?,
        PacketType::Subscribe => Packet::Subscribe(Subscribe {
            packet_id: packet_id(maker.u)?,
            properties: maker.of_v5(|maker| {
                Ok(SubscribeProperties {
                    subscription_id: maker.maybe(subscription_id)?,
                    user_properties: maker.user_properties(),
                })
            })?,
            filters: Subscriptions::from_slice(&requests),
        }),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(maker.u)?,
            user_properties: maker.of_v5(|maker| Ok(maker.user_properties()))?,
            filters: Filters::from_slice(&filters),
        }),
        PacketType::SubAck => Packet::SubAck(SubAck {
            packet_id: packet_id(maker.u)?,
            properties: maker.of_v5(Maker::ack_properties)?,
            reason_codes: ReasonCodes::from_slice(&codes),
        }),
        PacketType::UnsubAck => Packet::UnsubAck(UnsubAck {
            packet_id: packet_id(maker.u)?,
            properties: maker.of_v5(Maker::ack_properties)?,
            reason_codes: ReasonCodes::from_slice(if version == ProtocolVersion::V5 { &codes } else { &[] }),
        }),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(maker.disconnect()?),
        PacketType::Auth => Packet::Auth(maker.auth()?),
    };
    Ok(then(version, &packet))
}

/// What makes a packet field by field.
struct Maker<'u, 'a, 'l> {
    u: &'u mut Unstructured<'a>,
    version: ProtocolVersion,
    lists: &'l Lists<'a>,
}

impl<'a, 'l> Maker<'_, 'a, 'l>
where
    'a: 'l,
{
    /// Properties, which the older versions have none of.
    fn of_v5<T: Default>(&mut self, make: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.version == ProtocolVersion::V5 {
            make(self)
        } else {
            Ok(T::default())
        }
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Unstructured<'a>) -> Result<T>) -> Result<Option<T>> {
        if self.u.arbitrary()? {
            make(self.u).map(Some)
        } else {
            Ok(None)
        }
    }

    fn user_properties(&self) -> UserProperties<'l> {
        UserProperties::from_pairs(&self.lists.pairs)
    }

    fn connect(&mut self) -> Result<Connect<'l>> {
        let username = self.maybe(text)?;
        let may_have_password = username.is_some() || self.version == ProtocolVersion::V5;
        Ok(Connect {
            version: self.version,
            clean_start: self.u.arbitrary()?,
            keep_alive: self.u.arbitrary()?,
            client_id: text(self.u)?,
            will: if self.u.arbitrary()? { Some(self.will()?) } else { None },
            username,
            password: self.maybe(binary)?.filter(|_| may_have_password),
            properties: self.of_v5(|maker| {
                let method = maker.maybe(text)?;
                Ok(ConnectProperties {
                    session_expiry_interval: maker.u.arbitrary()?,
                    receive_maximum: maker.maybe(non_zero_u16)?,
                    maximum_packet_size: maker.maybe(non_zero_u32)?,
                    topic_alias_maximum: maker.u.arbitrary()?,
                    request_response_information: maker.u.arbitrary()?,
                    request_problem_information: maker.u.arbitrary()?,
                    user_properties: maker.user_properties(),
                    authentication_method: method,
                    authentication_data: maker.maybe(binary)?.filter(|_| method.is_some()),
                })
            })?,
        })
    }

    fn will(&mut self) -> Result<Will<'l>> {
        Ok(Will {
            topic: topic_name(self.u)?,
            payload: binary(self.u)?,
            qos: qos(self.u)?,
            retain: self.u.arbitrary()?,
            properties: self.of_v5(|maker| {
                Ok(WillProperties {
                    will_delay_interval: maker.u.arbitrary()?,
                    message_expiry_interval: maker.u.arbitrary()?,
                    application: ApplicationProperties::from_stored(&maker.lists.will_application),
                })
            })?,
        })
    }

    fn connack(&mut self) -> Result<ConnAck<'l>> {
        let reason_code = if self.version == ProtocolVersion::V5 {
            allowed(self.u, PacketType::ConnAck)?
        } else {
            ReasonCode::from_connect_return_code(self.u.int_in_range(0..=5)?).expect("3.x has these six")
        };
        let session_present: bool = self.u.arbitrary()?;
        Ok(ConnAck {
            session_present: session_present && !reason_code.is_error() && self.version > ProtocolVersion::V31,
            reason_code,
            properties: self.of_v5(Self::connack_properties)?,
        })
    }

    fn connack_properties(&mut self) -> Result<ConnAckProperties<'l>> {
        let method = self.maybe(text)?;
        Ok(ConnAckProperties {
            session_expiry_interval: self.u.arbitrary()?,
            receive_maximum: self.maybe(non_zero_u16)?,
            maximum_qos: self.maybe(|u| Ok(*u.choose(&[QoS::AtMostOnce, QoS::AtLeastOnce])?))?,
            retain_available: self.u.arbitrary()?,
            maximum_packet_size: self.maybe(non_zero_u32)?,
            assigned_client_id: self.maybe(text)?,
            topic_alias_maximum: self.u.arbitrary()?,
            reason_string: self.maybe(text)?,
            user_properties: self.user_properties(),
            wildcard_subscription_available: self.u.arbitrary()?,
            subscription_ids_available: self.u.arbitrary()?,
            shared_subscription_available: self.u.arbitrary()?,
            server_keep_alive: self.u.arbitrary()?,
            response_information: self.maybe(text)?,
            server_reference: self.maybe(text)?,
            authentication_method: method,
            authentication_data: self.maybe(binary)?.filter(|_| method.is_some()),
        })
    }

    fn publish(&mut self) -> Result<Publish<'l>> {
        let qos = qos(self.u)?;
        let dup: bool = self.u.arbitrary()?;
        let (topic, packet_id) = (topic_name(self.u)?, packet_id(self.u)?);
        let by_alias: bool = self.u.arbitrary()?;
        let properties = self.of_v5(|maker| {
            Ok(PublishProperties {
                message_expiry_interval: maker.u.arbitrary()?,
                topic_alias: maker
                    .maybe(|u| Ok(TopicAlias::new(u.int_in_range(1..=u16::MAX)?)))?
                    .flatten(),
                subscription_ids: match &*maker.lists.ids {
                    [id] => SubscriptionIds::one(*id),
                    ids => SubscriptionIds::from_slice(ids),
                },
                application: ApplicationProperties::from_stored(&maker.lists.application),
            })
        })?;
        Ok(Publish {
            dup: dup && qos > QoS::AtMostOnce,
            qos,
            retain: self.u.arbitrary()?,
            topic: (!by_alias || properties.topic_alias.is_none()).then_some(topic),
            packet_id: (qos > QoS::AtMostOnce).then_some(packet_id),
            properties,
            payload: self.u.bytes(self.u.len())?,
        })
    }

    fn ack(&mut self, packet_type: PacketType) -> Result<Packet<'l>> {
        let packet_id = packet_id(self.u)?;
        let reason_code = match self.version {
            ProtocolVersion::V5 => allowed(self.u, packet_type)?,
            _ => ReasonCode::Success,
        };
        let properties = self.of_v5(Self::ack_properties)?;
        Ok(match packet_type {
            PacketType::PubAck => Packet::PubAck(PubAck {
                packet_id,
                reason_code,
                properties,
            }),
            PacketType::PubRec => Packet::PubRec(PubRec {
                packet_id,
                reason_code,
                properties,
            }),
            PacketType::PubRel => Packet::PubRel(PubRel {
                packet_id,
                reason_code,
                properties,
            }),
            _ => Packet::PubComp(PubComp {
                packet_id,
                reason_code,
                properties,
            }),
        })
    }

    fn ack_properties(&mut self) -> Result<AckProperties<'l>> {
        Ok(AckProperties {
            reason_string: self.maybe(text)?,
            user_properties: self.user_properties(),
        })
    }

    fn disconnect(&mut self) -> Result<Disconnect<'l>> {
        if self.version < ProtocolVersion::V5 {
            return Ok(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION));
        }
        Ok(Disconnect {
            reason_code: allowed(self.u, PacketType::Disconnect)?,
            properties: DisconnectProperties {
                session_expiry_interval: self.u.arbitrary()?,
                reason_string: self.maybe(text)?,
                user_properties: self.user_properties(),
                server_reference: self.maybe(text)?,
            },
        })
    }

    fn auth(&mut self) -> Result<Auth<'l>> {
        let reason_code = allowed(self.u, PacketType::Auth)?;
        let method = self.maybe(text)?;
        // Anything but a success names its method [section 3.15.2.2.2].
        let method = method.or((reason_code != ReasonCode::Success).then_some(""));
        Ok(Auth {
            reason_code,
            properties: AuthProperties {
                authentication_method: method,
                authentication_data: self.maybe(binary)?.filter(|_| method.is_some()),
                reason_string: self.maybe(text)?,
                user_properties: self.user_properties(),
            },
        })
    }
}

fn packet_type(u: &mut Unstructured<'_>, version: ProtocolVersion) -> Result<PacketType> {
    let last = if version == ProtocolVersion::V5 { 15 } else { 14 };
    Ok(PacketType::from_first_byte(u.int_in_range(1..=last)? << 4).expect("1 to 15 are packets"))
}

/// A code that the packet may have on 5.0.
fn allowed(u: &mut Unstructured<'_>, packet_type: PacketType) -> Result<ReasonCode> {
    let allowed: Vec<_> = ReasonCode::ALL
        .iter()
        .copied()
        .filter(|code| code.is_allowed_on(packet_type))
        .collect();
    u.choose(&allowed).copied()
}

/// One code or more for a SUBACK or an UNSUBACK; for other packets nobody asks.
fn codes(u: &mut Unstructured<'_>, packet_type: PacketType, version: ProtocolVersion) -> Result<Vec<ReasonCode>> {
    const OF_3_X: [ReasonCode; 4] = [
        ReasonCode::GRANTED_QOS_0,
        ReasonCode::GrantedQoS1,
        ReasonCode::GrantedQoS2,
        ReasonCode::UnspecifiedError,
    ];
    if !matches!(packet_type, PacketType::SubAck | PacketType::UnsubAck) {
        return Ok(Vec::new());
    }
    (0..u.int_in_range(1..=LIST_MAX)?)
        .map(|_| match version {
            ProtocolVersion::V5 => allowed(u, packet_type),
            _ => u.choose(&OF_3_X).copied(),
        })
        .collect()
}

fn pairs<'a>(u: &mut Unstructured<'a>) -> Result<Vec<(&'a str, &'a str)>> {
    list(u, |u| Ok((text(u)?, text(u)?)))
}

fn list<'a, T>(u: &mut Unstructured<'a>, mut make: impl FnMut(&mut Unstructured<'a>) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while all.len() < LIST_MAX && u.ratio(1, 3)? {
        all.push(make(u)?);
    }
    Ok(all)
}

/// At least one filter with its options.
fn filters(u: &mut Unstructured<'_>) -> Result<Vec<(String, SubscriptionOptions)>> {
    let mut all = list(u, request)?;
    all.push(request(u)?);
    Ok(all)
}

fn request(u: &mut Unstructured<'_>) -> Result<(String, SubscriptionOptions)> {
    let filter = filter(u)?;
    let no_local: bool = u.arbitrary()?;
    let options = SubscriptionOptions {
        qos: qos(u)?,
        // [MQTT-3.8.3-4]
        no_local: no_local && !filter.starts_with("$share/"),
        retain_as_published: u.arbitrary()?,
        retain_handling: RetainHandling::from_bits(u.int_in_range(0..=2)?).unwrap_or_default(),
    };
    Ok((filter, options))
}

/// What is left of the options on 3.x.
fn said(
    (filter, options): (TopicFilter<'_>, SubscriptionOptions),
    version: ProtocolVersion,
) -> (TopicFilter<'_>, SubscriptionOptions) {
    let of_3_x = SubscriptionOptions {
        qos: options.qos,
        ..SubscriptionOptions::default()
    };
    (
        filter,
        if version == ProtocolVersion::V5 {
            options
        } else {
            of_3_x
        },
    )
}

/// Levels, some of them wildcards, in or out of a Shared Subscription.
pub fn filter(u: &mut Unstructured<'_>) -> Result<String> {
    let mut filter = String::new();
    if u.ratio(1, 4)? {
        filter.push_str("$share/");
        filter.push_str(u.choose(&["g", "h", "é", "$"])?);
        filter.push('/');
    }
    let plain = filter.len();
    for number in 0..u.int_in_range(1..=6)? {
        if number > 0 {
            filter.push('/');
        }
        match u.int_in_range(0..=7)? {
            0 | 1 => filter.push('+'),
            2 => {
                filter.push('#');
                break;
            }
            3 => filter.push_str(topic_name(u)?.as_str()),
            _ => filter.push_str(u.choose(&["a", "b", "", "$SYS"])?),
        }
    }
    if filter.len() == plain {
        filter.push('/');
    }
    Ok(if TopicFilter::new(&filter).is_ok() {
        filter
    } else {
        "a/+/#".to_owned()
    })
}

fn valid_filter(filter: &str) -> TopicFilter<'_> {
    TopicFilter::new(filter).expect("it was checked when it was made")
}

/// Any topic of any length.
pub fn topic_name<'a>(u: &mut Unstructured<'a>) -> Result<TopicName<'a>> {
    let text = text(u)?;
    let end = text.find(['+', '#']).unwrap_or(text.len());
    Ok(TopicName::new(&text[..end]).unwrap_or(TopicName::assume_valid("t")))
}

/// Text of MQTT: up to U+0000, which is none.
fn text<'a>(u: &mut Unstructured<'a>) -> Result<&'a str> {
    let text: &str = u.arbitrary()?;
    Ok(text.split('\0').next().unwrap_or_default())
}

fn binary<'a>(u: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let bytes: &[u8] = u.arbitrary()?;
    Ok(&bytes[..bytes.len().min(u16::MAX.into())])
}

/// The Properties that a server passes on, in any order.
fn application(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut stored = Vec::new();
    let mut builder = ApplicationPropertiesBuilder::new(&mut stored);
    let mut seen = 0_u8;
    for _ in 0..u.int_in_range(0..=LIST_MAX)? {
        let kind = u.int_in_range(0..=5)?;
        if seen & 1 << kind != 0 {
            continue;
        }
        // User Properties, the last two kinds, may come again.
        seen |= 0x0f & 1 << kind;
        builder = match kind {
            0 => builder.payload_format_indicator(u.arbitrary()?),
            1 => builder.content_type(text(u)?),
            2 => builder.response_topic(topic_name(u)?),
            3 => builder.correlation_data(binary(u)?),
            _ => builder.user_property(text(u)?, text(u)?),
        };
    }
    drop(builder);
    Ok(stored)
}

fn qos(u: &mut Unstructured<'_>) -> Result<QoS> {
    Ok(QoS::from_bits(u.int_in_range(0..=2)?).expect("there are three"))
}

fn packet_id(u: &mut Unstructured<'_>) -> Result<PacketId> {
    Ok(PacketId::new(u.int_in_range(1..=PacketId::MAX)?).expect("it is not zero"))
}

fn subscription_id(u: &mut Unstructured<'_>) -> Result<SubscriptionId> {
    Ok(SubscriptionId::new(u.int_in_range(1..=SubscriptionId::MAX)?).expect("it is in range"))
}

fn non_zero_u16(u: &mut Unstructured<'_>) -> Result<NonZeroU16> {
    u.arbitrary()
}

fn non_zero_u32(u: &mut Unstructured<'_>) -> Result<NonZeroU32> {
    u.arbitrary()
}
