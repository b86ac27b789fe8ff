//! Enhanced authentication (section 4.12) of one client: its method and the step of its exchange.
//!
//! The engine knows no method. It passes on what the two sides of one say, and keeps beside the connection what the
//! authenticator noted between two steps, so that an authenticator needs no memory of its own: what it noted ends with
//! the connection. Most clients have none of this, so it stands in a table and not in the connection.
//!
//! ```text
//!  CONNECT ──┐                      ┌── Continue: AUTH 0x18 ──► ExpectAuth ──┐
//!            ▼                      │                                        │
//!       ExpectAnswer ───────────────┤◄─────────────── AUTH 0x18 ─────────────┘
//!            ▲                      │
//!            │ AUTH 0x19            ├── Proven: CONNACK 0x00, later AUTH 0x00 ──► Idle
//!          Idle                     └── Refused: CONNACK, later DISCONNECT ──► closed
//! ```

use alloc::{boxed::Box, string::String, vec::Vec};

use sol_codec::{Auth, AuthProperties, ProtocolVersion, ReasonCode};

use crate::effects::{AuthData, Credentials};
use crate::violation::Violation;

/// The Authentication Method of a client, and how far its exchange has come.
#[derive(Clone, Debug)]
pub(crate) struct Enhanced {
    /// As CONNECT named it; every AUTH repeats it [MQTT-4.12.0-5].
    pub(crate) method: Box<str>,
    step: Step,
}

/// What an exchange expects.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing; the client may begin another one.
    Idle,
    /// The authenticator's answer.
    ExpectAnswer,
    /// The client's AUTH 0x18, to be asked about together with what the authenticator noted.
    ExpectAuth(Vec<u8>),
}

impl Enhanced {
    /// The exchange that a CONNECT with this method begins: the authenticator is being asked.
    pub(crate) fn begin(method: &str) -> Self {
        Self {
            method: method.into(),
            step: Step::ExpectAnswer,
        }
    }

    /// Whether the client has the next word.
    pub(crate) const fn expects_auth(&self) -> bool {
        matches!(self.step, Step::ExpectAuth(_))
    }

    /// Whether the authenticator has the next word.
    pub(crate) const fn expects_answer(&self) -> bool {
        matches!(self.step, Step::ExpectAnswer)
    }

    /// Bytes of what the authenticator noted: charged while the client is in.
    pub(crate) const fn noted_bytes(&self) -> usize {
        match &self.step {
            Step::ExpectAuth(memo) => memo.len(),
            Step::Idle | Step::ExpectAnswer => 0,
        }
    }

    /// The authenticator wants another step: what it says to the client, and what it noted for itself.
    pub(crate) fn go_on(&mut self, data: Vec<u8>, memo: Vec<u8>) -> AuthData {
        self.step = Step::ExpectAuth(memo);
        self.auth(ReasonCode::ContinueAuthentication, Some(data))
    }

    /// The exchange is over, well.
    pub(crate) fn finish(&mut self) {
        self.step = Step::Idle;
    }

    /// An AUTH of ours.
    pub(crate) fn auth(&self, reason_code: ReasonCode, data: Option<Vec<u8>>) -> AuthData {
        AuthData {
            reason_code,
            method: String::from(&*self.method),
            data,
        }
    }

    /// Takes an AUTH of the client's, and gives what the authenticator is to be asked.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn take(&mut self, auth: &Auth<'_>) -> Result<Credentials, Violation> {
        match (auth.reason_code, &self.step) {
            (ReasonCode::ContinueAuthentication, Step::ExpectAuth(_)) | (ReasonCode::ReAuthenticate, Step::Idle) => {}
            _ => return Err(Violation::AuthOutOfTurn),
        }
        if auth.properties.authentication_method != Some(&*self.method) {
            return Err(Violation::AnotherMethod);
        }
        let memo = match core::mem::replace(&mut self.step, Step::ExpectAnswer) {
            Step::ExpectAuth(memo) => Some(memo),
            Step::Idle | Step::ExpectAnswer => None,
        };
        Ok(Credentials::Exchange {
            method: String::from(&*self.method),
            memo,
            data: auth.properties.authentication_data.map(Vec::from),
        })
    }
}

impl AuthData {
    /// The packet to encode.
    #[must_use]
    pub fn packet(&self) -> Auth<'_> {
        Auth {
            reason_code: self.reason_code,
            properties: AuthProperties {
                authentication_method: Some(&self.method),
                authentication_data: self.data.as_deref(),
                ..AuthProperties::default()
            },
        }
    }

    /// The exact encoded length.
    pub(crate) fn encoded_len(&self) -> usize {
        self.packet().encoded_len(ProtocolVersion::V5)
    }
}
