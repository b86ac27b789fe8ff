use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
use tempfile::TempDir;

use super::*;
use crate::config::Host;

/// A folder with a certificate, its key, and others'.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for name in ["own", "other"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            files.write(&format!("{name}.crt"), &params.self_signed(&key).unwrap().pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A listener with these lines.
    fn listener(&self, lines: &str) -> Listener {
        let lines = lines.replace('@', &format!("{}/", self.0.path().display()));
        let text = format!("listener 1 127.0.0.1\nallow_anonymous true\n{lines}");
        let mut config = Config::parse("f".as_ref(), text.as_bytes(), &Host::default()).unwrap();
        config.listeners.swap_remove(0)
    }

    /// What is said of a listener with these lines: the error, or else the warnings.
    fn said(&self, lines: &str) -> Vec<String> {
        let said = match load(&self.listener(lines)) {
            Ok((tls, warnings)) => {
                assert!(tls.is_some());
                warnings
            }
            Err(error) => vec![error],
        };
        let folder = format!("{}/", self.0.path().display());
        said.iter().map(|said| said.to_string().replace(&folder, "@")).collect()
    }
}

/// A list of no revoked certificates that is to be followed by another.
fn revocations(next_year: i32) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2000, 1, 1),
        next_update: date_time_ymd(next_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&authority).unwrap().pem().unwrap()
}

const OWN: &str = "certfile @own.crt\nkeyfile @own.key\n";

/// What is in order is taken in silence: chains, authorities, lists of suites, versions.
#[test]
fn good_files_are_taken() {
    let files = Files::new();
    files.write("old.crl", &revocations(2001));
    files.write("new.crl", &revocations(4096));
    for more in [
        "",
        "cafile @other.crt\nrequire_certificate true\n",
        "cafile @other.crt\nrequire_certificate true\nuse_identity_as_username true\ndisable_client_cert_date_checks true\n",
        "tls_version tlsv1.3\n",
        "ciphers ECDHE-ECDSA-AES128-GCM-SHA256\nciphers_tls1.3 TLS_AES_128_GCM_SHA256\n",
        "protocol websockets\n",
        "cafile @other.crt\ncrlfile @new.crl\nrequire_certificate true\n",
        "cafile @other.crt\ncrlfile @old.crl\n",
    ] {
        assert_eq!(files.said(&format!("{OWN}{more}")), [""; 0], "{more}");
    }
}

/// Each fault of a file is one sentence that names the file and says what to do.
#[test]
fn faults_are_named() {
    let files = Files::new();
    files.write("empty", "");
    files.write(
        "secret.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.write("cut.crt", "-----BEGIN CERTIFICATE-----\nMIIB");
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2001, 1, 1);
    let key = KeyPair::generate().unwrap();
    files.write("old.crt", &params.self_signed(&key).unwrap().pem());
    files.write("old.key", &key.serialize_pem());
    files.write("old.crl", &revocations(2001));
    for (lines, expected) in [
        ("certfile @none\nkeyfile @own.key\n", "@none: cannot be read: "),
        (
            "certfile @empty\nkeyfile @own.key\n",
            "@empty: there is no certificate in it",
        ),
        ("certfile @cut.crt\nkeyfile @own.key\n", "@cut.crt: no PEM file: "),
        (
            "certfile @own.crt\nkeyfile @own.crt\n",
            "@own.crt: there is no private key in it",
        ),
        (
            "certfile @own.crt\nkeyfile @secret.key\n",
            "@secret.key: the key is encrypted, ",
        ),
        (
            "certfile @own.crt\nkeyfile @other.key\n",
            "@other.key: the key is not that of the certificate in @own.crt",
        ),
        (
            "certfile @old.crt\nkeyfile @old.key\n",
            "@old.crt: the certificate is expired, ",
        ),
    ] {
        let said = files.said(lines);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }
    for (lines, expected) in [
        (
            "cafile @empty\nrequire_certificate true\n",
            "@empty: there is no certificate of an authority in it",
        ),
        (
            "cafile @other.crt\ncrlfile @empty\nrequire_certificate true\n",
            "@empty: there is no list of revoked certificates in it",
        ),
        (
            "cafile @other.crt\ncrlfile @old.crl\nrequire_certificate true\n",
            "@old.crl: the list of revoked certificates is out of date, ",
        ),
        ("cafile @other.crt\ncrlfile @none\n", "@none: cannot be read: "),
        ("ciphers RC4-MD5\n", "f:5: none of these cipher suites is spoken"),
        ("ciphers HIGH:RC4-MD5\n", "f:5: `RC4-MD5` is left out"),
    ] {
        let said = files.said(&format!("{OWN}{lines}"));
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }
}

/// Of a directory of authorities every entry that is one is taken, and what is something else is left out; one that cannot be
/// looked at is named, since without it its clients would be refused.
#[test]
fn entries_that_cannot_be_read_are_named() {
    let files = Files::new();
    let cas = files.0.path().join("cas");
    fs::create_dir(&cas).unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, cas.join(name)).unwrap();
    let lines = format!("{OWN}capath @cas\nrequire_certificate true\n");
    link("../other.crt", "other.0");
    link("../gone.crt", "gone.0");
    fs::create_dir(cas.join("old")).unwrap();
    files.write("cas/README", "-----BEGIN CERTIFICATE-----\n");
    files.write("cas/list.r0", &revocations(2001));
    assert_eq!(files.said(&lines), [""; 0]);
    link("round.0", "round.0");
    let said = files.said(&lines);
    assert!(
        said.len() == 1 && said[0].starts_with("@cas/round.0: cannot be read: "),
        "{said:?}"
    );
}

/// A key that every user of the machine can read is told with the command that helps.
#[test]
fn a_key_that_is_open_is_told() {
    let files = Files::new();
    let path = files.0.path().join("own.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let said = files.said(OWN);
    assert_eq!(
        said,
        ["@own.key: open to every user of this machine; run: chmod o-rwx '@own.key'"]
    );
}

/// A client resumes by a ticket in both versions of TLS, and not where its certificate is asked for: nobody would look at
/// the dates of that again. Where these do not matter it may.
#[test]
fn tickets_are_for_those_whose_certificates_are_not_looked_at() {
    let files = Files::new();
    let path = |name: &str| files.0.path().join(name);
    for (more, is_resumed) in [
        ("", true),
        ("cafile @own.crt\nrequire_certificate true\n", false),
        ("cafile @own.crt\nuse_identity_as_username true\n", false),
        (
            "cafile @own.crt\nrequire_certificate true\ndisable_client_cert_date_checks true\n",
            true,
        ),
    ] {
        let listener = files.listener(&format!("{OWN}{more}"));
        let server = load(&listener).unwrap().0.unwrap().config;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let chain = certificates(&path("own.crt"), "").unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(chain[0].clone()).unwrap();
            let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, private_key(&path("own.key"), &mut Vec::new()).unwrap())
                .unwrap();
            let client = Arc::new(client);
            let kinds = [(); 2].map(|()| talk(&client, &server));
            assert_eq!(kinds[0], HandshakeKind::Full);
            assert_eq!(kinds[1] == HandshakeKind::Resumed, is_resumed, "{more} {version:?}");
        }
    }
}

/// How a client and a server have agreed.
fn talk(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    client.handshake_kind().unwrap()
}

/// The name of a client is its Common Name or its whole subject, and one without is told why it has none.
#[test]
fn names_of_clients() {
    let key = KeyPair::generate().unwrap();
    let issue = |common_name: Option<&str>| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "a, b");
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.self_signed(&key).unwrap().der().clone()
    };
    let (common_name, subject) = (name_of(CertificateName::CommonName), name_of(CertificateName::Subject));
    assert_eq!(common_name(&[issue(Some("jill"))]).unwrap(), "jill");
    assert_eq!(subject(&[issue(Some("jill"))]).unwrap(), "CN=jill,O=a\\, b");
    for chain in [
        vec![issue(None)],
        vec![issue(Some("j\0"))],
        vec![b"x".to_vec().into()],
        Vec::new(),
    ] {
        let why = common_name(&chain).unwrap_err();
        assert!(why.contains("certificate"), "{why}");
    }
}
