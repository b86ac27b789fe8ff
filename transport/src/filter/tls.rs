//! TLS of one connection, over the interface of rustls that owns no buffers.

use std::mem;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};

use super::{End, Fault};
use crate::conns::append_held;
use crate::listener::Tls;

/// The first byte of every handshake (RFC 8446, section 5.1).
pub(crate) const HANDSHAKE_FIRST_BYTE: u8 = 0x16;
/// Bytes of a record's header, in which the last two are the length of the rest.
const RECORD_HEADER_BYTES: usize = 5;
/// Most bytes that are held because a part of a message of TLS has come: a chain of several certificates fits, and so does
/// the largest record.
const PARTIAL_BYTES_MAX: usize = 24 << 10;
/// What rustls is taken to hold itself for a handshake.
const HANDSHAKE_STATE_BYTES: usize = 4 << 10;
/// Largest payload of a record, and what one is longer by than its payload, at most.
const RECORD_PAYLOAD_MAX: usize = 16 << 10;
const RECORD_EXTRA_BYTES: usize = 32;
/// Most bytes of a closing alert.
const ALERT_BYTES: usize = 64;

/// See the module.
pub(super) struct TlsLayer {
    connection: UnbufferedServerConnection,
    /// A record of which a part has come, or records of a message of which rustls awaits the rest.
    partial: Vec<u8>,
    /// It went wrong: rustls may know places of bytes that are gone, and is asked nothing more.
    is_failed: bool,
    /// The peer said that it sends no more.
    is_closed: bool,
}

impl TlsLayer {
    /// The TLS of a peer that sends this byte first.
    pub(super) fn begin(first: u8, tls: &Tls) -> Result<Box<Self>, Fault> {
        if first != HANDSHAKE_FIRST_BYTE {
            return Err(Fault::NoTls);
        }
        Ok(Box::new(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(&tls.config))?,
            partial: Vec::new(),
            is_failed: false,
            is_closed: false,
        }))
    }

    /// Takes a segment, and appends what it says to `plain` and what is to be answered to `answer`.
    pub(super) fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Option<End> {
        if self.is_failed {
            return None;
        }
        // And so it is if it panics.
        self.is_failed = true;
        let outcome = if self.partial.is_empty() {
            self.take_in_place(bytes, plain, answer)
        } else {
            self.complete(bytes, plain, answer)
        };
        match outcome {
            Err(fault) => Some(End::Fault(fault)),
            Ok(()) => {
                self.is_failed = false;
                self.is_closed.then_some(End::Closed)
            }
        }
    }

    /// Decrypts in the memory of the segment, and keeps what has come of one more record.
    fn take_in_place(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<(), Fault> {
        let used = self.process(bytes, plain, answer)?;
        self.hold(bytes.get(used..).unwrap_or_default())
    }

    /// Completes what is held, and goes on behind it.
    fn complete(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<(), Fault> {
        let mut rest = bytes;
        loop {
            let (more, behind) = rest.split_at_mut(self.missing().min(rest.len()));
            self.hold(more)?;
            rest = behind;
            if self.is_established() && !last_record(&self.partial).is_empty() {
                if rest.is_empty() {
                    return Ok(());
                }
                continue;
            }
            let mut partial = mem::take(&mut self.partial);
            let used = self.process(&mut partial, plain, answer)?;
            partial.drain(..used.min(partial.len()));
            if partial.is_empty() {
                return self.take_in_place(rest, plain, answer);
            }
            self.partial = partial;
            if rest.is_empty() {
                self.partial.shrink_to_fit();
                return Ok(());
            }
        }
    }

    /// How many more bytes there is use for before rustls looks at what is held: the rest of a record.
    fn missing(&self) -> usize {
        if !self.is_established() {
            return usize::MAX;
        }
        let record = last_record(&self.partial);
        let len = record_len(record).unwrap_or(RECORD_HEADER_BYTES);
        len.saturating_sub(record.len())
    }

    /// Keeps bytes, within the bound for a part of a message.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.partial.len().saturating_add(bytes.len()) > PARTIAL_BYTES_MAX {
            return Err(Fault::LongTls);
        }
        append_held(&mut self.partial, bytes, PARTIAL_BYTES_MAX);
        Ok(())
    }

    /// Has rustls take the records at the front. Gives how many bytes are done with; the others are to be shown again, as
    /// they are now.
    fn process(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0_usize;
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard = discard.saturating_add(record.discard);
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, answer),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed = true,
                Ok(_) => return Ok(used.saturating_add(discard)),
                Err(error) => {
                    // What is at the front is what rustls knows of.
                    let from = used.saturating_add(discard);
                    self.encode_alert(bytes.get_mut(from..).unwrap_or_default(), answer);
                    return Err(error.into());
                }
            }
            used = used.saturating_add(discard);
        }
    }

    /// Appends what rustls has to say of an error, if anything.
    fn encode_alert(&mut self, bytes: &mut [u8], answer: &mut Vec<u8>) {
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(bytes).state
        {
            encode(&mut data, answer);
        }
    }

    /// Appends `plain` in as few records as possible. `false`: no more can be encrypted.
    pub(super) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> bool {
        if self.is_failed {
            // It is being closed, and the alert that says why was the last that could be said.
            return true;
        }
        let records = plain.len() / RECORD_PAYLOAD_MAX + 1;
        let room = plain.len().saturating_add(records.saturating_mul(RECORD_EXTRA_BYTES));
        self.write(sealed, room, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Appends the alert that ends an established connection.
    pub(super) fn close(&mut self, sealed: &mut Vec<u8>) {
        if self.is_established() && !self.is_failed {
            // Without it the end of the connection says the same.
            let _ = self.write(sealed, ALERT_BYTES, |traffic, room| traffic.queue_close_notify(room));
        }
    }

    /// Appends what `write` writes, once rustls has written what it has to say before.
    fn write(
        &mut self,
        sealed: &mut Vec<u8>,
        room: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> bool {
        loop {
            // What is held was looked at before, so that nothing comes of it now.
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.partial);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, sealed),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return append(sealed, room, |room| {
                        write(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Some(size),
                            EncryptError::EncryptExhausted => None,
                        })
                    });
                }
                _ => return false,
            }
        }
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    pub(super) fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    pub(super) const fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Lets go of what is held. Nothing may be received any more.
    pub(super) fn forget_input(&mut self) {
        // Where rustls still knows places in it, which are in records that are whole, it must find them.
        let is_unseen = last_record(&self.partial).len() == self.partial.len();
        if self.is_established() && is_unseen {
            self.partial = Vec::new();
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        let own = if self.is_established() {
            0
        } else {
            HANDSHAKE_STATE_BYTES
        };
        self.partial.capacity() + own
    }
}

/// What has come of the record that is not yet whole.
fn last_record(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = record_len(bytes).and_then(|len| bytes.get(len..)) {
        bytes = rest;
    }
    bytes
}

/// The length of the record at the front with its header, if that has come.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(RECORD_HEADER_BYTES - 2..RECORD_HEADER_BYTES)?;
    let length = u16::from_be_bytes(length.try_into().ok()?);
    Some(RECORD_HEADER_BYTES + usize::from(length))
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    append(out, 0, |room| {
        data.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Appends what `write` writes into as much room as it needs, of which `room` is a guess. `false`: it cannot.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> bool {
    let at = out.len();
    loop {
        out.resize(at.saturating_add(room), 0);
        match write(out.get_mut(at..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(at.saturating_add(written));
                return true;
            }
            Err(Some(size)) if size.required_size > room => room = size.required_size,
            Err(_) => {
                out.truncate(at);
                return false;
            }
        }
    }
}
