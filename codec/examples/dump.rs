//! Prints a capture of one direction of an MQTT connection, one line a packet.
//!
//! `cargo run --example dump -- capture.bin` or `… | cargo run --example dump`; the version is taken from the CONNECT,
//! and is 5.0 where the capture begins later.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::io;

use sol_codec::{DecodeLimits, Decoded, Packet, ProtocolVersion, decode};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut capture = Vec::new();
    match std::env::args().nth(1) {
        Some(path) => capture = std::fs::read(path)?,
        None => drop(io::copy(&mut io::stdin(), &mut capture)?),
    }
    let (mut rest, mut version) = (&capture[..], ProtocolVersion::V5);
    while let Decoded::Packet { packet, len } = decode(rest, version, &DecodeLimits::default())? {
        println!("{packet:?}");
        if let Packet::Connect(connect) = packet {
            version = connect.version;
        }
        rest = &rest[len..];
    }
    if !rest.is_empty() {
        println!("the capture ends inside a packet, after {} of its bytes", rest.len());
    }
    Ok(())
}
