//! Certificates made for a test, and clients that speak TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion};
use sol_codec::{Packet, ProtocolVersion};
use sol_transport::Tls;

use crate::support::{PATIENCE, connect};

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
            rcgen::KeyUsagePurpose::DigitalSignature,
        ];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a name, with a serial number.
    pub(crate) fn issue(&self, name: &str, serial: u64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn revoke(&self, serial: u64) -> CertificateRevocationListDer<'static> {
        let now = date_time_ymd(2020, 1, 1);
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: date_time_ymd(4096, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().der().clone()
    }

    /// What a listener needs; `revoked`: clients need a certificate, and not the one with this serial number.
    pub(crate) fn server(&self, own: &Identity, revoked: Option<u64>) -> Tls {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&VERSIONS)
            .unwrap();
        let builder = match revoked {
            None => builder.with_no_client_auth(),
            Some(serial) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::new(default_provider()))
                    .with_crls([self.revoke(serial)])
                    .build()
                    .unwrap(),
            ),
        };
        let config = builder
            .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())
            .unwrap();
        Tls {
            config: Arc::new(config),
            name_of: None,
        }
    }

    /// What a client needs that trusts this authority.
    pub(crate) fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        own: Option<&Identity>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())
                .unwrap(),
        })
    }
}

pub(crate) struct TlsClient {
    pub(crate) tls: StreamOwned<ClientConnection, TcpStream>,
    pub(crate) version: ProtocolVersion,
    received: Vec<u8>,
}

impl TlsClient {
    /// A connection on which nothing was sent.
    pub(crate) fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self {
            tls: StreamOwned::new(connection, stream),
            version: ProtocolVersion::V5,
            received: Vec::new(),
        }
    }

    /// Agrees with the broker on TLS, and sends nothing else.
    pub(crate) fn shake_hands(&mut self) {
        while self.tls.conn.is_handshaking() {
            self.tls.conn.complete_io(&mut self.tls.sock).unwrap();
        }
    }

    /// A connection that was let in.
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>, client_id: &str) -> Self {
        let mut client = Self::open(address, config);
        client.send(&connect(client.version, client_id));
        client.with_packet(|packet| match packet {
            Packet::ConnAck(connack) => assert_eq!(connack.reason_code, sol_codec::ReasonCode::Success),
            other => panic!("no CONNACK: {other:?}"),
        });
        client
    }

    /// Sends in one record, if it fits.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.tls.write_all(bytes).unwrap();
    }

    /// Waits for a packet.
    pub(crate) fn with_packet<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        super::support::with_packet(&mut self.tls, &mut self.received, self.version, look)
    }

    /// A round trip.
    pub(crate) fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        self.with_packet(|packet| assert!(matches!(packet, Packet::PingResp), "no PINGRESP: {packet:?}"));
    }

    /// Why nothing can be sent or received any more: what the alert says, or a reset.
    pub(crate) fn refusal(&mut self) -> String {
        let mut bytes = [0; 4_096];
        let outcome = self.tls.write_all(&connect(self.version, "refused")).and_then(|()| {
            loop {
                if self.tls.read(&mut bytes)? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
        });
        outcome.map_or_else(|error| error.to_string(), |()| String::new())
    }
}
