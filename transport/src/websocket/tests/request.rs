//! The request: what is granted, what is refused, and with what words.

use super::*;

/// What comes of the request of the module above, one line of which is another.
fn with(line: &str, instead: &str) -> Conversation {
    assert!(REQUEST.contains(line));
    answer_to(&REQUEST.replace(line, instead))
}

fn answer_to(request: &str) -> Conversation {
    let mut conversation = Conversation::default();
    conversation.hear(request.as_bytes());
    conversation
}

fn assert_granted(conversation: &Conversation, subprotocol: &str) {
    let wanted = GRANTED.replace("Protocol: mqtt", &format!("Protocol: {subprotocol}"));
    assert_eq!(String::from_utf8_lossy(&conversation.out), wanted);
    assert!(conversation.end.is_none() && conversation.filter.is_open());
}

/// The request was answered with this status, completely, and the connection is over.
fn assert_refused(conversation: &Conversation, refusal: Refusal, status: u16) {
    let out = String::from_utf8(conversation.out.clone()).unwrap();
    assert_eq!(conversation.end, Some(Ending::Refused(refusal)), "{out}");
    let (head, body) = out.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{out}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{out}"
    );
    assert!(head.contains("\r\nConnection: close"), "{out}");
    assert!(body.ends_with(".\n") && body.len() > 10, "{out}");
    assert!(!conversation.filter.is_open());
    assert_eq!(conversation.filter.held_bytes(), 0);
}

#[test]
fn a_request_is_granted_with_its_proof() {
    // RFC 6455, sections 1.3 and 4.2.2; [MQTT-6.0.0-4].
    let conversation = answer_to(REQUEST);
    assert_granted(&conversation, "mqtt");
    assert_eq!(conversation.filter.held_bytes(), 0);
}

#[test]
fn names_and_tokens_have_no_case_and_may_stand_in_lists() {
    // RFC 6455, section 4.2.1; RFC 9110, section 5.6.1.
    for (line, instead) in [
        ("Upgrade: websocket", "upgrade:WebSocket"),
        ("Upgrade: websocket", "UPGRADE: h2c,  WEBSOCKET \t"),
        ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
        ("Sec-WebSocket-Version: 13", "sec-websocket-version:  13 "),
        ("GET /mqtt?token=1", "GET /"),
        ("GET /mqtt?token=1", "GET /any/where%20else?a=b&c"),
        ("Origin: http://example.com\r\n", ""),
        ("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ] {
        assert_granted(&with(line, instead), "mqtt");
    }
}

#[test]
fn the_first_subprotocol_that_is_mqtt_is_taken() {
    // [MQTT-6.0.0-3], [MQTT-6.0.0-4]; the order is the client's (RFC 6455, section 4.1).
    let line = "Sec-WebSocket-Protocol: mqtt";
    for (offered, taken) in [
        ("mqttv3.1", "mqttv3.1"),
        ("mqtt, mqttv3.1", "mqtt"),
        ("mqttv3.1,mqtt", "mqttv3.1"),
        ("wamp, , amqp,mqtt", "mqtt"),
        ("wamp\r\nSec-WebSocket-Protocol: mqttv3.1", "mqttv3.1"),
    ] {
        assert_granted(&with(line, &format!("Sec-WebSocket-Protocol: {offered}")), taken);
    }
    for offered in [
        "Sec-WebSocket-Protocol: wamp",
        "Sec-WebSocket-Protocol: MQTT",
        "Sec-WebSocket-Protocol: mqtt5",
        "Sec-WebSocket-Protocol:",
        "Accept: mqtt",
    ] {
        assert_refused(&with(line, offered), Refusal::Subprotocol, 400);
    }
}

#[test]
fn a_request_that_is_not_right_is_refused_with_its_status() {
    // RFC 6455, section 4.2.1 and 4.4; RFC 9110, sections 15.5 and 15.6; RFC 9112, section 3.2.
    use Refusal::*;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let version = "Sec-WebSocket-Version: 13";
    let host = "Host: server.example.com\r\n";
    #[rustfmt::skip]
    let cases: [(&str, &str, Refusal, u16); 29] = [
        ("GET", "POST", Method, 405),
        ("GET", "HEAD", Method, 405),
        ("GET", "GETS", Method, 405),
        ("HTTP/1.1", "HTTP/1.0", HttpVersion, 505),
        ("HTTP/1.1", "HTTP/2.0", HttpVersion, 505),
        ("HTTP/1.1", "HTTP/9", HttpVersion, 505),
        (host, "", Host, 400),
        (host, "Host: a\r\nHost: b\r\n", Host, 400),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello", Body, 400),
        ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", Body, 400),
        ("Upgrade: websocket", "Accept: text/html", NoUpgrade, 426),
        ("Upgrade: websocket", "Upgrade: h2c", NoUpgrade, 426),
        ("Upgrade: websocket", "Upgrade: websockets", NoUpgrade, 426),
        ("Connection: Upgrade", "Connection: keep-alive", NoUpgrade, 426),
        (version, "Sec-WebSocket-Version: 99", WebSocketVersion, 426),
        (version, "Sec-WebSocket-Version: 8", WebSocketVersion, 426),
        (version, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8", WebSocketVersion, 426),
        (version, "Accept: 13", WebSocketVersion, 426),
        (key, "Accept: none", Key, 400),
        (key, "Sec-WebSocket-Key:", Key, 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ", Key, 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==", Key, 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSBub25jZQ==", Key, 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", Key, 400),
        (host, "Host server.example.com\r\n", Malformed, 400),
        (host, "Ho\0st: a\r\n", Malformed, 400),
        (host, "Host: a\r\n folded\r\n", Malformed, 400),
        (host, "Host: a\r\r\n", Malformed, 400),
        (host, "Host: a\n\n", Malformed, 400),
    ];
    for (line, instead, refusal, status) in cases {
        let conversation = with(line, instead);
        assert_refused(&conversation, refusal, status);
        let out = String::from_utf8(conversation.out).unwrap();
        assert_eq!(out.contains("\r\nAllow: GET\r\n"), status == 405, "{out}");
        let asks_upgrade =
            out.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: close, Upgrade\r\n");
        assert_eq!(asks_upgrade, status == 426, "{out}");
    }
}

#[test]
fn only_pages_of_a_listed_origin_may_connect() {
    // RFC 6455, section 10.2: a page is told from another by what its browser says; who is no browser says nothing.
    let rules = WebSocketRules {
        origins: vec!["https://example.org".into(), "http://example.com".into()],
        ..WebSocketRules::default()
    };
    for (origin, may) in [
        ("Origin: http://example.com\r\n", true),
        ("Origin: HTTPS://Example.org\r\n", true),
        ("", true),
        ("Origin: https://example.com\r\n", false),
        ("Origin: http://example.com.evil.org\r\n", false),
        ("Origin: http://example.co\r\n", false),
        ("Origin: http\r\n", false),
        ("Origin:\r\n", false),
        ("Origin: null\r\n", false),
        ("Origin: http://example.com\r\nOrigin: http://evil.org\r\n", false),
    ] {
        let mut conversation = Conversation {
            rules: rules.clone(),
            ..Conversation::default()
        };
        conversation.hear(REQUEST.replace("Origin: http://example.com\r\n", origin).as_bytes());
        if may {
            assert_granted(&conversation, "mqtt");
        } else {
            assert_refused(&conversation, Refusal::Origin, 403);
        }
    }
}

#[test]
fn who_speaks_no_http_gets_no_answer_in_it() {
    // At once, where the first byte or the first line tells.
    for bytes in [
        b"\x16\x03\x01\x02\x00".as_slice(),
        b"\0",
        b"\r\n",
        b"get / HTTP/1.1\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"USER anonymous\r\n",
        b"GET /\r\n",
        b"EHLO a b\r\n",
        b"GET \x01 HTTP/1.1\r\n",
    ] {
        let mut conversation = Conversation::default();
        conversation.hear(bytes);
        let end = Some(Ending::NotHttp);
        assert_eq!(
            conversation.close().seen(),
            (b"".as_slice(), b"".as_slice(), end),
            "{bytes:?}"
        );
    }
    // And a client whose port is wrong shall find that in the log.
    let mut conversation = Conversation::default();
    conversation.hear(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a");
    let end = Some(Ending::PlainMqtt);
    assert_eq!(conversation.close().seen(), (b"".as_slice(), b"".as_slice(), end));
}

#[test]
fn a_request_has_a_largest_size() {
    // RFC 9110, section 15.5.15; RFC 6585, section 5. Nothing more is held.
    let long_header = |len: usize| REQUEST.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(len)));
    let fits = long_header(8_192 - REQUEST.len() - 5);
    assert_eq!(fits.len(), 8_192);
    let mut conversation = Conversation::default();
    conversation.hear(&[fits.as_bytes(), &frame(0x82, b"CONNECT")].concat());
    assert_granted(&conversation, "mqtt");
    assert_eq!(conversation.payload, b"CONNECT");

    let many = (0..300).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    for (request, refusal, status) in [
        (long_header(8_192 - REQUEST.len() - 4), Refusal::LongHead, 431),
        (long_header(100 << 10), Refusal::LongHead, 431),
        (REQUEST.replace("Host", &format!("{many}Host")), Refusal::LongHead, 431),
        (format!("GET /{}", "a".repeat(20_000)), Refusal::LongLine, 414),
        (format!("GET /{} HTTP/1.1", "a".repeat(8_192)), Refusal::LongLine, 414),
        (format!("A{}", "A".repeat(8_192)), Refusal::LongLine, 414),
    ] {
        for len in [request.len(), 1_000, 1] {
            let mut conversation = Conversation::default();
            let mut held_max = 0;
            for segment in request.as_bytes().chunks(len) {
                conversation.hear(segment);
                held_max = held_max.max(conversation.filter.held_bytes());
            }
            assert_refused(&conversation, refusal, status);
            assert!(held_max <= 16_384, "{held_max}");
        }
    }
    let mut noise = Conversation::default();
    noise.hear(&[b"A".as_slice(), &[b' '; 10_000]].concat());
    assert_eq!(noise.seen(), (b"".as_slice(), b"".as_slice(), Some(Ending::NotHttp)));
}

#[test]
fn an_answer_repeats_nothing_of_the_request() {
    // What a page can make a browser send shall not come back as content of this server.
    let marked = REQUEST
        .replace("/mqtt?token=1", "/<script>")
        .replace("server.example.com", "<script>")
        .replace("http://example.com", "<script>");
    for (line, instead) in [
        ("/<script>", "/<script>/"),
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket", "Upgrade: <script>"),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: <script>"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "<script>"),
        ("Protocol: mqtt", "Protocol: <script>"),
        ("Host: ", "<script>: "),
    ] {
        let conversation = answer_to(&marked.replace(line, instead));
        let out = String::from_utf8(conversation.out).unwrap();
        assert!(out.starts_with("HTTP/1.1 ") && !out.contains("script"), "{out}");
    }
}
