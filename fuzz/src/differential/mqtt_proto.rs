//! The crate `mqtt-proto`: 3.1, 3.1.1 and 5.0.

use mqtt_proto::{PollHeader, v3, v5};
use sol_codec::ProtocolVersion;

use super::{Frame, Verdict};

pub(super) fn judge(frame: Frame<'_>) -> Verdict {
    match frame.version {
        ProtocolVersion::V5 => {
            let packet = read::<v5::Header>(frame).map_err(|error| format!("{error:?}"))?;
            packet
                .encode()
                .map(|bytes| bytes.as_ref().to_vec())
                .map_err(|error| format!("{error:?}"))
        }
        _ => {
            let packet = read::<v3::Header>(frame).map_err(|error| format!("{error:?}"))?;
            packet
                .encode()
                .map(|bytes| bytes.as_ref().to_vec())
                .map_err(|error| format!("{error:?}"))
        }
    }
}

/// As its own reader does once a packet is there as a whole.
fn read<H: PollHeader>(frame: Frame<'_>) -> Result<H::Packet, H::Error> {
    let header = H::new_with(frame.first, frame.body.len() as u32, frame.whole.len() as u32)?;
    match header.build_empty_packet() {
        Some(packet) => Ok(packet),
        None => header.decode_buffer(frame.body, &mut 0),
    }
}
