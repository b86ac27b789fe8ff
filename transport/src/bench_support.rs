//! What the fuzz targets reach into. No part of the transport's interface: anything here may change at any time.

pub use crate::websocket::{Ending, Fault, Received, Refusal, WebSocket};
