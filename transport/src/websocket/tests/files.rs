//! Requests for files: what is found, what is answered, and that nothing else is ever found.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const PAGE: &[u8] = b"<h1>Hello</h1>";
/// SHA-1 of that.
const TAG: &str = "\"6b2825b8dc7d97d4dbfcf06e9139f899772f810f\"";

fn site() -> Arc<Files> {
    let mut files = Files::default();
    files.insert(b"/index.html", "text/html; charset=utf-8", PAGE.to_vec());
    files.insert(b"/js/mqtt.js", "text/javascript; charset=utf-8", b"let x;".to_vec());
    files.insert(b"/a b/index.html", "text/html; charset=utf-8", b"deep".to_vec());
    files.insert(b"/empty", "application/octet-stream", Vec::new());
    Arc::new(files)
}

fn listener() -> Conversation {
    Conversation {
        rules: WebSocketRules {
            files: Some(site()),
            ..WebSocketRules::default()
        },
        ..Conversation::default()
    }
}

/// The whole answer to a request, with its file.
fn answer_to(request: &str) -> String {
    let mut conversation = listener();
    conversation.hear(request.as_bytes());
    assert_eq!(conversation.end, Some(Ending::Answered), "{request}");
    if let Some(file) = conversation.filter.file() {
        conversation.out.extend_from_slice(file.body());
    }
    assert!(conversation.filter.file().is_none() && !conversation.filter.is_open());
    assert_eq!(conversation.filter.held_bytes(), 0);
    let length = conversation.out.len();
    conversation.hear(REQUEST.as_bytes());
    let closed = conversation.close();
    assert_eq!(closed.out.len(), length, "one request is answered, and nothing else");
    String::from_utf8(closed.out).unwrap()
}

fn get(target: &str) -> String {
    answer_to(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn status(answer: &str) -> &str {
    &answer[9..12]
}

#[test]
fn a_file_is_answered_with_what_it_is_and_all_of_it() {
    // RFC 9110, sections 6.4, 8.3, 8.6, 8.8.3 and 9.3.1.
    let whole = get("/");
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 14\r\nETag: {TAG}\r\n\
             Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nConnection: close"
        )
    );
    assert_eq!(body.as_bytes(), PAGE);
    for same in [
        "/index.html",
        "/?",
        "/?a=/js/mqtt.js",
        "/%69ndex%2ehtml",
        "http://a/",
        "HTTP://a",
        "https://a:1/index.html?q",
    ] {
        assert_eq!(get(same), whole, "{same}");
    }
    assert!(get("/js/mqtt.js").ends_with("\r\n\r\nlet x;"));
    assert!(get("/a%20b/").ends_with("\r\n\r\ndeep"));
    assert!(get("/empty").contains("\r\nContent-Length: 0\r\n"));
    // An older version is answered too, and needs no Host.
    assert_eq!(answer_to("GET / HTTP/1.0\r\n\r\n"), whole);
    // What it would be is told without it (section 9.3.2).
    let head_only = answer_to("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head_only, whole.strip_suffix("<h1>Hello</h1>").unwrap());
}

#[test]
fn a_file_that_is_known_is_not_sent_again() {
    // RFC 9110, section 13.1.2: by weak comparison, and only as long as it is the same.
    let whole = get("/");
    let asked = |known: &str| answer_to(&format!("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {known}\r\n\r\n"));
    for known in [
        TAG.to_owned(),
        format!("W/{TAG}"),
        "*".to_owned(),
        format!("\"old\", {TAG}"),
        format!("\"old\"\r\nIf-None-Match: {TAG}"),
    ] {
        let answer = asked(&known);
        assert_eq!(
            answer,
            format!(
                "HTTP/1.1 304 Not Modified\r\nETag: {TAG}\r\nCache-Control: no-cache\r\n\
                 X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
            )
        );
    }
    for other in ["\"old\"", "", TAG.trim_matches('"'), "W/*"] {
        assert_eq!(asked(other), whole, "{other}");
    }
}

#[test]
fn a_directory_is_its_page_and_without_one_nothing() {
    // A link of the page must lead below it: so the slash is asked for first.
    let moved = get("/a%20b?x=1");
    assert_eq!(status(&moved), "301");
    assert!(moved.contains("\r\nLocation: /a%20b/\r\n"), "{moved}");
    // A reload may make a file of it, or have one there.
    assert!(moved.contains("\r\nCache-Control: no-cache\r\n"), "{moved}");
    for none in ["/js", "/js/", "/index.html/", "*"] {
        let none = get(none);
        assert_eq!(status(&none), "404", "{none}");
        assert!(none.contains("\r\nCache-Control: no-cache\r\n"), "{none}");
    }
}

#[test]
fn no_path_leads_out() {
    // A path is looked up as it is: none that is not there is found by another spelling.
    for path in [
        "/../index.html",
        "/js/../index.html",
        "/%2e%2e/index.html",
        "/..%2findex.html",
        "/./index.html",
        "//index.html",
        "//",
        "/js//mqtt.js",
        "/index.html%00",
        "/%00",
        "/index.html%",
        "/index.html%2",
        "/%zz",
        "/INDEX.HTML",
        "/index.html.",
        "/%252e%252e/etc/passwd",
        "/..\\index.html",
        "index.html",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://",
        "ftp://a/",
    ] {
        let expected = if path == "http://" { "200" } else { "404" };
        assert_eq!(status(&get(path)), expected, "{path}");
    }
}

#[test]
fn what_is_not_to_get_a_file_is_told_so() {
    // RFC 9110, section 15.5.6; RFC 9112, section 3.2. And an answer to HEAD has no body.
    for (request, wanted) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    ] {
        let answer = answer_to(request);
        assert_eq!(status(&answer), wanted, "{request}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{answer}"
        );
        assert!(head.ends_with("Connection: close"), "{answer}");
        assert_eq!(head.contains("\r\nAllow: GET, HEAD\r\n"), wanted == "405", "{answer}");
    }
    let none = answer_to("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        none.starts_with("HTTP/1.1 404 ") && none.ends_with("\r\n\r\n"),
        "{none}"
    );
}

#[test]
fn a_websocket_is_a_websocket_beside_files() {
    // RFC 6455, section 4.2.1: and one whose upgrade a proxy has left out learns that, and gets no page.
    let mut conversation = listener();
    conversation.hear(REQUEST.as_bytes());
    assert_eq!(conversation.out, GRANTED.as_bytes());
    conversation.hear(&frame(0x82, b"CONNECT"));
    assert_eq!(conversation.payload, b"CONNECT");
    for (line, instead, refusal) in [
        ("Upgrade: websocket\r\n", "", Refusal::NoUpgrade),
        ("Connection: Upgrade", "Connection: close", Refusal::NoUpgrade),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", Refusal::Key),
        ("GET", "HEAD", Refusal::Method),
    ] {
        let mut conversation = listener();
        conversation.hear(REQUEST.replace(line, instead).as_bytes());
        assert_eq!(conversation.end, Some(Ending::Refused(refusal)));
    }
    // And a request that is none is refused as ever.
    let mut conversation = listener();
    conversation.hear(b"GET / HTTP/2.0\r\n\r\n");
    assert_eq!(conversation.end, Some(Ending::Refused(Refusal::HttpVersion)));
}

#[test]
fn an_answer_without_a_file_repeats_nothing_of_the_request() {
    // What a page can make a browser send shall not come back as content of this server.
    for target in ["/<script>", "/a%20b?<script>", "/%3cscript%3e/", "http://<script>/none"] {
        let answer = get(target);
        assert!(!answer.contains("script"), "{answer}");
    }
}

#[test]
fn a_request_may_come_in_pieces() {
    let request = "GET /js/mqtt.js HTTP/1.1\r\nHost: a\r\n\r\n";
    let whole = get("/js/mqtt.js");
    for cut in 1..request.len() {
        let mut conversation = listener();
        conversation.hear(&request.as_bytes()[..cut]);
        conversation.hear(&request.as_bytes()[cut..]);
        let file = conversation.filter.file().unwrap();
        conversation.out.extend_from_slice(file.body());
        assert_eq!(String::from_utf8_lossy(&conversation.out), whole, "{cut}");
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_for_only_what_is_there_is_answered(
        target in "(http://a)?(/|%2[eEfF]|\\.\\.|index\\.html|js|mqtt\\.js|a%20b|%00|[!-~]){0,8}"
    ) {
        // No request path ever yields anything but a file of the map, whole, and any other answer is one of few sentences.
        let mut conversation = listener();
        conversation.hear(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        if let Some(file) = conversation.filter.file() {
            let known: [&[u8]; 4] = [PAGE, b"let x;", b"deep", b""];
            prop_assert!(known.contains(&file.body()));
            prop_assert!(conversation.out.starts_with(b"HTTP/1.1 200 OK\r\n"));
        } else {
            let out = String::from_utf8_lossy(&conversation.out);
            prop_assert!(
                out.is_empty() || ["301", "400", "404", "414"].contains(&&out[9..12]),
                "{}", out
            );
        }
    }
}
