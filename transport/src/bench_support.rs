//! What the fuzz targets reach into. No part of the transport's interface: anything here may change at any time.

pub use crate::websocket::{Ending, Fault, Received, Refusal, WebSocket};

use crate::ProxyVersion;
use crate::peer::PeerAddr;
use crate::proxy::{HEADER_BYTES_MAX, Header, Proxy};

/// What the header of a proxy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Where the client is.
    pub client: Option<PeerAddr>,
    /// It speaks TLS with the proxy.
    pub is_encrypted: bool,
    /// The Common Name of the certificate that it has proven.
    pub common_name: Option<String>,
    /// Bytes of the header.
    pub len: usize,
}

/// Reads the header of a proxy as it comes, segment after segment: what it says, `None` if it has not come whole, or why it is
/// none.
///
/// # Errors
/// A sentence about what is wrong with it.
///
/// # Panics
/// More is held than may be.
pub fn introduction(version: ProxyVersion, segments: &[&[u8]]) -> Result<Option<Introduction>, String> {
    let (mut proxy, mut before) = (Proxy::default(), 0);
    for segment in segments {
        let found = proxy.receive(segment, version).map_err(|fault| fault.to_string())?;
        assert!(proxy.held_bytes() <= HEADER_BYTES_MAX, "too much is held");
        if let Some((header, used)) = found {
            let Header {
                client,
                is_encrypted,
                common_name,
            } = header;
            return Ok(Some(Introduction {
                client,
                is_encrypted,
                common_name,
                len: before + used,
            }));
        }
        before += segment.len();
    }
    Ok(None)
}
