use proptest::prelude::*;

use super::*;

const CONNECT: &[u8] = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

fn value(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![kind];
    value.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    value.extend(bytes);
    value
}

/// 192.0.2.7:50123 to 192.0.2.1:1883.
const IPV4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0xC3, 0xCB, 0x07, 0x5B];

fn ipv4(values: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&IPV4, values].concat())
}

fn ssl(client: u8, verify: u32, values: &[u8]) -> Vec<u8> {
    value(TYPE_SSL, &[&[client], &verify.to_be_bytes()[..], values].concat())
}

/// What a header and what follows it are read as, in one segment.
fn read(bytes: &[u8], version: ProxyVersion) -> Result<Option<(Header, usize)>, Fault> {
    Proxy::default().receive(bytes, version)
}

/// The client that a whole header tells of.
fn client(bytes: &[u8], version: ProxyVersion) -> Option<String> {
    let with_more = [bytes, CONNECT].concat();
    let (header, len) = read(&with_more, version).unwrap().unwrap();
    assert_eq!(len, bytes.len(), "what follows is the client's");
    header.client.map(|client| client.to_string())
}

/// Each form of a header tells where the client is, and one that does not know, or is of the proxy's own, tells nothing.
#[test]
fn where_the_client_is() {
    let line = |text: &str| client(format!("{text}\r\n").as_bytes(), ProxyVersion::V1);
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(line("PROXY TCP4 192.0.2.7 192.0.2.1 50123 1883"), of("192.0.2.7:50123"));
    assert_eq!(line("PROXY TCP6 2001:db8::7 ::1 65535 0"), of("[2001:db8::7]:65535"));
    assert_eq!(line("PROXY UNKNOWN"), None);
    assert_eq!(line("PROXY UNKNOWN ffff:f...f:ffff 65535"), None);
    let v2 = |bytes: &[u8]| client(bytes, ProxyVersion::V2);
    assert_eq!(v2(&ipv4(&[])), of("192.0.2.7:50123"));
    let mut ipv6 = [0; 36];
    ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
    ipv6[15] = 7;
    ipv6[33] = 9;
    assert_eq!(v2(&binary(0x21, 0x21, &ipv6)), of("[2001:db8::7]:9"));
    assert_eq!(v2(&binary(0x21, 0x31, &[b'/'; 216])), of("unix"));
    assert_eq!(v2(&binary(0x21, 0x00, &[])), None);
    assert_eq!(v2(&binary(0x20, 0x00, &[])), None);
    assert_eq!(v2(&binary(0x20, 0x11, &IPV4)), None, "LOCAL is nobody's");
    assert_eq!(v2(&binary(0x20, 0xFF, &[0xFF; 9])), None, "and its rest is ignored");
}

/// What TLS the client speaks with the proxy, and the name that it has proven there, are told; a name that is not proven is
/// none.
#[test]
fn what_the_proxy_knows_of_tls() {
    let name = value(SUBTYPE_SSL_CN, "jürgen".as_bytes());
    let told = |values: &[u8]| {
        let (header, _) = read(&ipv4(values), ProxyVersion::V2).unwrap().unwrap();
        (header.is_encrypted, header.common_name)
    };
    let proven = CLIENT_SSL | CLIENT_CERT_CONN;
    assert_eq!(told(&[]), (false, None));
    assert_eq!(told(&ssl(CLIENT_SSL, 0, &[])), (true, None));
    assert_eq!(told(&ssl(proven, 0, &name)), (true, Some("jürgen".to_owned())));
    assert_eq!(
        told(&ssl(CLIENT_SSL | CLIENT_CERT_SESS, 0, &name)),
        (true, Some("jürgen".to_owned()))
    );
    for unproven in [
        ssl(CLIENT_SSL, 0, &name),
        ssl(proven, 1, &name),
        ssl(CLIENT_CERT_CONN, 0, &name),
    ] {
        assert_eq!(told(&unproven).1, None, "{unproven:02x?}");
    }
    let among_others = [
        value(0x02, b"host"),
        ssl(proven, 0, &[value(0x21, b"TLSv1.3"), name].concat()),
        value(0x04, &[0; 9]),
    ];
    assert_eq!(told(&among_others.concat()).1.as_deref(), Some("jürgen"));
}

/// What is no header of the version that is demanded, or is a malformed one, is a fault, told as early as it can be.
#[test]
fn what_is_no_header() {
    let line = |text: &str| read(text.as_bytes(), ProxyVersion::V1);
    for missing in [
        "GET / HTTP/1.1\r\n",
        "\x10",
        "proxy TCP4",
        "PROXYTCP4",
        "\r\n\r\n\0\r\nQUIT\n",
    ] {
        assert_eq!(line(missing), Err(Fault::Missing), "{missing:?}");
    }
    for malformed in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 1 \r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
        "PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 -1 2\r\n",
        "PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n\r\n",
    ] {
        assert_eq!(line(malformed), Err(Fault::Line), "{malformed:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(107));
    assert_eq!(line(&long), Err(Fault::Long));
    let v2 = |bytes: &[u8]| read(bytes, ProxyVersion::V2);
    assert_eq!(v2(b"PROXY TCP4 "), Err(Fault::Missing));
    assert_eq!(v2(CONNECT), Err(Fault::Missing));
    for (command, family) in [
        (0x11, 0x11),
        (0x31, 0x11),
        (0x22, 0x11),
        (0x2F, 0x11),
        (0x21, 0x12),
        (0x21, 0x22),
        (0x21, 0x41),
    ] {
        assert_eq!(
            v2(&binary(command, family, &[0; 216])),
            Err(Fault::Unknown),
            "{command:x} {family:x}"
        );
    }
    for (family, len) in [(0x11, 11), (0x21, 35), (0x31, 215), (0x11, 0)] {
        assert_eq!(v2(&binary(0x21, family, &vec![0; len])), Err(Fault::Short));
    }
    assert_eq!(v2(&binary(0x21, 0x11, &[0; HEADER_BYTES_MAX])), Err(Fault::Long));
    for values in [
        vec![0x02],
        vec![0x02, 0],
        vec![0x02, 0, 2, b'x'],
        vec![0x02, 0xFF, 0xFF],
        value(TYPE_SSL, &[1, 0, 0, 0]),
        ssl(1, 0, &[0x22, 0, 9, b'x']),
        ssl(3, 0, &value(SUBTYPE_SSL_CN, b"\xFF")),
    ] {
        assert_eq!(v2(&ipv4(&values)), Err(Fault::Value), "{values:02x?}");
    }
}

proptest! {
    /// However a header and what follows are cut into segments, it is read as in one, and no more is ever held than may be.
    #[test]
    fn cuts_change_nothing(
        is_line in any::<bool>(),
        values in proptest::collection::vec(any::<u8>(), 0..900),
        is_valid in any::<bool>(),
        more in proptest::collection::vec(any::<u8>(), 0..2000),
        sizes in proptest::collection::vec(1_usize..64, 1..32),
    ) {
        let (version, header) = if is_line {
            (ProxyVersion::V1, b"PROXY TCP4 192.0.2.7 192.0.2.1 50123 1883\r\n".to_vec())
        } else {
            let values = if is_valid { value(0xEE, &values) } else { values };
            (ProxyVersion::V2, ipv4(&values))
        };
        let bytes = [header, more].concat();
        let whole = read(&bytes, version);
        let (mut proxy, mut at, mut sizes) = (Proxy::default(), 0, sizes.iter().cycle());
        let cut = loop {
            let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else { break Ok(None) };
            let segment = &rest[..rest.len().min(*sizes.next().unwrap())];
            match proxy.receive(segment, version) {
                Ok(None) => at += segment.len(),
                Ok(Some((header, used))) => break Ok(Some((header, at + used))),
                Err(fault) => break Err(fault),
            }
            prop_assert!(proxy.held_bytes() <= HEADER_BYTES_MAX);
        };
        prop_assert_eq!(cut, whole);
    }

    /// Whatever comes is a header, a part of one or a fault, and a part is never as long as a header may be.
    #[test]
    fn nothing_panics(
        start in 0_usize..=16,
        noise in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        for (version, valid) in [
            (ProxyVersion::V1, b"PROXY TCP4 192.0.2.7 1".to_vec()),
            (ProxyVersion::V2, ipv4(&[])),
        ] {
            let bytes = [&valid[..start], &noise[..]].concat();
            match read(&bytes, version) {
                Ok(None) => prop_assert!(bytes.len() < HEADER_BYTES_MAX),
                Ok(Some((_, len))) => prop_assert!(len <= bytes.len() && len <= HEADER_BYTES_MAX),
                Err(_) => {}
            }
        }
    }
}
