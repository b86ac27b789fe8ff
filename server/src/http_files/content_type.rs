//! What a file is said to be, by the end of its name. A browser believes it: it is told not to look for itself.

/// Endings in small letters.
const TYPES: &[(&str, &str)] = &[
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xml", "application/xml"),
];

/// The type of the file at this path; of one that nothing is known of, that it is bytes, which a browser saves and does not
/// show.
pub(super) fn content_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let ending = name
        .rsplit(|&byte| byte == b'.')
        .next()
        .filter(|ending| *ending != name);
    let known = TYPES
        .iter()
        .find(|(known, _)| ending.is_some_and(|ending| ending.eq_ignore_ascii_case(known.as_bytes())));
    known.map_or("application/octet-stream", |(_, content_type)| *content_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page and its scripts run, and what is not known is not guessed at.
    #[test]
    fn types_by_endings() {
        for (path, wanted) in [
            ("/index.html", "text/html; charset=utf-8"),
            ("/a/INDEX.HTM", "text/html; charset=utf-8"),
            ("/mqtt.min.js", "text/javascript; charset=utf-8"),
            ("/mqtt.min.js.map", "application/json"),
            ("/m.wasm", "application/wasm"),
            ("/js", "application/octet-stream"),
            ("/a.html/b", "application/octet-stream"),
            ("/a.", "application/octet-stream"),
            ("/a.html.bak", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path.as_bytes()), wanted, "{path}");
        }
        assert!(TYPES.is_sorted());
    }
}
